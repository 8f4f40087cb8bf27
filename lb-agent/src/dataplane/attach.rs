//! Attaching to an interface: native XDP, generic XDP or tc, by trying; links pinned, and taken
//! over from an agent that is gone.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use aya::Ebpf;
use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::tc::{TcAttachOptions, TcError};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::clsact::{self, Filter};
use super::error::DataPlaneError;
use super::links;
use super::load::load_steering_by_tc;
use super::pins::Pins;
use super::stages::connect_stages;
use crate::config::Mode;

pub(super) const XDP: &str = "lb_xdp";
pub(super) const STEER: &str = "lb_tc_steer";
const DELIVER: &str = "lb_tc_deliver";
const DELIVER_AFTER_GENERIC: &str = "lb_tc_deliver_g";
const EGRESS: &str = "lb_tc_egress";

/// The file that a link is pinned as tells its mode to the next agent.
const fn pin_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
        Mode::Tc => "tc",
    }
}

/// The programs on tc, by the name of their pin.
const TC_PINS: [(&str, Filter); 3] =
    [("tc", Filter::STEER), ("deliver", Filter::DELIVER), ("egress", Filter::EGRESS)];

/// An interface that the programs are attached to.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    pub index: u32,
    pub name: String,
    pub mode: Mode,
    /// Why this mode and not a better one.
    pub reason: String,
}

/// The modes that are tried, the first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder<'a> {
    modes: &'a [Mode],
    /// Why the first is the first.
    reason: &'static str,
}

impl<'a> Ladder<'a> {
    /// What is configured, or else what suits the interface.
    ///
    /// A stack at the other end of a veth leaves checksums open, for a card to fill in. Native XDP sees
    /// bytes alone and would send them on open, to be discarded; generic XDP and tc have the kernel's
    /// notes of them.
    pub fn of(configured: Option<&'a [Mode]>, veth: bool) -> Self {
        match configured {
            Some(modes) => Self { modes, reason: "first in data_path.modes" },
            None if veth => Self {
                modes: &[Mode::Generic, Mode::Tc, Mode::Native],
                reason: "the other end of a veth leaves checksums open, which native XDP cannot tell",
            },
            None => Self {
                modes: &[Mode::Native, Mode::Generic, Mode::Tc],
                reason: "the driver runs XDP",
            },
        }
    }
}

/// A failure on the way from a program to a pinned link.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFailure {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Attaches to the interface in the first of the ladder's modes that it takes.
pub(super) fn attach(
    object: &mut Ebpf,
    pins: &Pins,
    index: u32,
    name: &str,
    ladder: Ladder<'_>,
) -> Result<Attached, DataPlaneError> {
    let folder = pins.interface(index);
    fs::create_dir_all(&folder).map_err(|e| DataPlaneError::file("making", &folder, e))?;
    let result = attach_all(object, &folder, index, name, ladder);
    if result.is_err() {
        // Nothing half attached. The error that matters is the first.
        let _ = detach(pins, index);
    }
    result
}

fn attach_all(
    object: &mut Ebpf,
    folder: &Path,
    index: u32,
    name: &str,
    ladder: Ladder<'_>,
) -> Result<Attached, DataPlaneError> {
    let failed = |what: &str, error: &LinkFailure| DataPlaneError::Attach {
        name: name.to_owned(),
        tried: format!("{what}: {}", explain(error)),
    };
    // Delivery and guard first: steering sends packets to them.
    let deliver = folder.join("deliver");
    tc(object, DELIVER, name, Filter::DELIVER, &deliver).map_err(|e| failed("tc ingress", &e))?;
    tc(object, EGRESS, name, Filter::EGRESS, &folder.join("egress"))
        .map_err(|e| failed("tc egress", &e))?;
    let mut tried = Vec::new();
    for &mode in ladder.modes {
        let pin = folder.join(pin_name(mode));
        let result = match mode {
            Mode::Native => xdp(object, index, XdpMode::Driver, &pin),
            Mode::Generic => xdp(object, index, XdpMode::Skb, &pin),
            Mode::Tc => {
                load_steering_by_tc(object)?;
                connect_stages(object)?;
                tc(object, STEER, name, Filter::STEER, &pin)
            }
        };
        match result {
            Ok(()) => {
                put(object, deliver_program(mode), name, Filter::DELIVER, &deliver)
                    .map_err(|e| failed("tc ingress", &e))?;
                let why =
                    if tried.is_empty() { ladder.reason.to_owned() } else { tried.join("; ") };
                return Ok(Attached { index, name: name.to_owned(), mode, reason: why });
            }
            Err(error)
                if mode != Mode::Tc
                    && matches!(errno(&error), Some(libc::EBUSY | libc::EEXIST)) =>
            {
                return Err(DataPlaneError::ForeignProgram { name: name.to_owned() });
            }
            Err(error) => tried.push(format!("{}: {}", pin_name(mode), explain(&error))),
        }
    }
    Err(DataPlaneError::Attach { name: name.to_owned(), tried: tried.join("; ") })
}

fn xdp(object: &mut Ebpf, index: u32, mode: XdpMode, pin: &Path) -> Result<(), LinkFailure> {
    let program: &mut Xdp = program(object, XDP)?;
    let id = program.attach_to_if_index(index, mode)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(pin)?;
    Ok(())
}

/// Attaches a tc program, by a link where the kernel has them.
fn tc(
    object: &mut Ebpf,
    name: &str,
    interface: &str,
    filter: Filter,
    pin: &Path,
) -> Result<(), LinkFailure> {
    let program: &mut SchedClassifier = program(object, name)?;
    if clsact::is_needed(interface) {
        return clsact::attach(program, interface, filter, pin);
    }
    let (direction, order) = match filter {
        Filter::STEER => (TcAttachType::Ingress, LinkOrder::first()),
        Filter::EGRESS => (TcAttachType::Egress, LinkOrder::default()),
        _ => (TcAttachType::Ingress, LinkOrder::default()),
    };
    let options = TcAttachOptions::TcxOrder(order);
    let id = program.attach_with_options(interface, direction, options)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(pin)?;
    Ok(())
}

fn program<'a, P>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// What an earlier agent left on an interface. Nothing where it did not come to steering.
pub(super) fn inherited(pins: &Pins, index: u32, name: &str) -> Option<Attached> {
    let folder = pins.interface(index);
    let modes = [Mode::Native, Mode::Generic, Mode::Tc];
    let mode = modes.into_iter().find(|&mode| folder.join(pin_name(mode)).exists())?;
    let (name, reason) = (name.to_owned(), "taken over from the agent before".to_owned());
    Some(Attached { index, name, mode, reason })
}

/// Whether an agent steers some interface at tc.
pub(super) fn any_by_tc(pins: &Pins) -> bool {
    let by_tc = |index| pins.interface(index).join(pin_name(Mode::Tc)).exists();
    pins.interfaces().into_iter().any(by_tc)
}

/// Puts this agent's programs into the links that are pinned for the interface, without a packet passing in
/// between unseen. `before_steering` comes last before the program that steers.
pub(super) fn switch(
    object: &mut Ebpf,
    pins: &Pins,
    attached: &Attached,
    before_steering: impl Fn() -> Result<(), DataPlaneError>,
) -> Result<(), DataPlaneError> {
    let Attached { index, name, mode, .. } = attached;
    let folder = pins.interface(*index);
    let mut put = |program, pin, filter| {
        put(object, program, name, filter, &folder.join(pin)).map_err(|error| {
            let tried = format!("taking over the pinned link {pin}: {}", explain(&error));
            DataPlaneError::Attach { name: name.clone(), tried }
        })
    };
    put(deliver_program(*mode), "deliver", Filter::DELIVER)?;
    put(EGRESS, "egress", Filter::EGRESS)?;
    before_steering()?;
    let steering = if *mode == Mode::Tc { STEER } else { XDP };
    put(steering, pin_name(*mode), Filter::STEER)
}

/// The program that delivers behind a mode's steering.
const fn deliver_program(mode: Mode) -> &'static str {
    match mode {
        Mode::Generic => DELIVER_AFTER_GENERIC,
        Mode::Native | Mode::Tc => DELIVER,
    }
}

/// Puts a program into a pinned link, or the filter that stands for one.
fn put(
    object: &mut Ebpf,
    name: &str,
    interface: &str,
    filter: Filter,
    pin: &Path,
) -> Result<(), LinkFailure> {
    if clsact::is_marked(pin) {
        return clsact::replace(program(object, name)?, interface, filter);
    }
    let program = object.program(name).ok_or(ProgramError::NotLoaded)?;
    Ok(links::replace(pin, program.fd()?.as_fd())?)
}

/// Detaches everything of ours from the interface.
pub(super) fn detach(pins: &Pins, index: u32) -> Result<(), DataPlaneError> {
    let folder = pins.interface(index);
    // Steering first, so that no packet is sent to a delivery that is gone.
    for mode in [Mode::Native, Mode::Generic] {
        let _ = fs::remove_file(folder.join(pin_name(mode)));
    }
    detach_filters(&folder, index);
    let _ = fs::remove_file(folder.join(pin_name(Mode::Tc)));
    fs::remove_dir_all(&folder).map_err(|e| DataPlaneError::file("removing", &folder, e))
}

/// Deletes the filters that have marks in an interface's folder.
pub(super) fn detach_filters(folder: &Path, index: u32) {
    for (pin, filter) in TC_PINS {
        if clsact::is_marked(&folder.join(pin)) {
            clsact::detach(index, filter);
        }
    }
}

pub(super) fn errno(error: &LinkFailure) -> Option<i32> {
    if let LinkFailure::Io(io) = error {
        return io.raw_os_error();
    }
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        source = error.source();
    }
    None
}

/// An attach error with what it usually means.
pub(super) fn explain(error: &LinkFailure) -> String {
    match errno(error) {
        Some(libc::EOPNOTSUPP) => {
            "the driver does not run XDP (virtio: large receive offload is on, or too few queues)"
                .to_owned()
        }
        Some(libc::ERANGE) => "the MTU is too large for XDP in this driver".to_owned(),
        Some(libc::EBUSY) => "another program is attached".to_owned(),
        Some(libc::EPERM) => "not permitted: root is needed".to_owned(),
        Some(libc::ENODEV) => "the interface is gone".to_owned(),
        Some(libc::EEXIST) => "another XDP program is attached in another mode".to_owned(),
        Some(errno) => format!("{error} ({})", std::io::Error::from_raw_os_error(errno)),
        None => error.to_string(),
    }
}

/// The same of the system's error by itself.
pub fn attach_words(error: std::io::Error) -> String {
    explain(&LinkFailure::Io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_is_not_given_native_xdp_unless_the_file_says_so() {
        assert_eq!(Ladder::of(None, true).modes[0], Mode::Generic);
        assert_eq!(Ladder::of(None, false).modes[0], Mode::Native);
        let configured = [Mode::Native];
        assert_eq!(Ladder::of(Some(&configured), true).modes, configured);
    }
}
