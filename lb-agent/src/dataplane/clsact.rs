//! tc programs as filters of a `clsact` qdisc: how a program gets to an interface where the kernel has
//! no tcx (before 6.6, kernel commit e420bed02507).
//!
//! A filter is no link: it belongs to the interface, not to a file. So an empty directory stands
//! where a link would be pinned. It tells the next agent that there is a filter, and detaching that
//! the filter has to be deleted. The qdisc itself stays: others may have filters on it.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::Link as _;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{SchedClassifier, TcAttachType};

use super::attach::{LinkFailure, errno};

/// "LB" in ASCII: tells ours from others of the same priority.
const HANDLE: TcHandle = TcHandle::new(0, 0x4c42);

/// Where a filter stands among those of an interface and a direction. Lower priorities come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filter {
    direction: TcAttachType,
    priority: u16,
}

impl Filter {
    /// Before all others.
    pub(super) const STEER: Self = Self { direction: TcAttachType::Ingress, priority: 1 };
    /// Behind those that ask for a priority, before none that let the kernel choose: it begins with
    /// 49152 and counts down.
    pub(super) const DELIVER: Self = Self { direction: TcAttachType::Ingress, priority: 49_200 };
    pub(super) const EGRESS: Self = Self { direction: TcAttachType::Egress, priority: 49_200 };
}

/// Whether the kernel has no tcx, as it says itself: distributions take features back to older
/// kernels.
pub(super) fn is_needed(interface: &str) -> bool {
    SchedClassifier::query_tcx(interface, TcAttachType::Ingress).is_err()
}

/// Whether `place` stands for a filter.
pub(super) fn is_marked(place: &Path) -> bool {
    place.is_dir()
}

/// Adds the filter, and marks it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    filter: Filter,
    place: &Path,
) -> Result<(), LinkFailure> {
    // First the mark: a filter that nobody knows of would stay for ever.
    fs::create_dir(place)?;
    add(program, interface, filter)
}

/// Puts a program into a filter that is there, without a packet passing in between. One that somebody
/// deleted comes back.
pub(super) fn replace(
    program: &mut SchedClassifier,
    interface: &str,
    filter: Filter,
) -> Result<(), LinkFailure> {
    match program.attach_to_link(filter.on(interface)?) {
        Ok(id) => {
            keep(program.take_link(id)?);
            Ok(())
        }
        Err(_) => add(program, interface, filter),
    }
}

fn add(program: &mut SchedClassifier, interface: &str, filter: Filter) -> Result<(), LinkFailure> {
    let qdisc = qdisc_add_clsact(interface).map_err(LinkFailure::from);
    if let Err(error) = qdisc
        && errno(&error) != Some(libc::EEXIST)
    {
        return Err(error);
    }
    let (priority, handle, classid) = (filter.priority, HANDLE, None);
    let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid });
    let id = program.attach_with_options(interface, filter.direction, options)?;
    keep(program.take_link(id)?);
    Ok(())
}

/// Deletes the filter. One that is gone, alone or with its interface, is as good.
pub(super) fn detach(index: u32, filter: Filter) {
    let Ok(name) = nix::net::if_::if_indextoname(index) else { return };
    if let Ok(link) = filter.on(&name.to_string_lossy()) {
        let _ = link.detach();
    }
}

impl Filter {
    fn on(self, interface: &str) -> io::Result<SchedClassifierLink> {
        SchedClassifierLink::attached(interface, self.direction, self.priority, HANDLE, None)
    }
}

/// aya deletes a filter with the value that stands for it; ours outlive the agent. The value owns
/// nothing else.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}
