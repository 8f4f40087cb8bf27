//! The loaded programs as those that a story is told to, and a story's setting as a scene.

use std::io;

use anyhow::{Result, bail};
use lb_common::backend::Delivery;

use super::setting::{Backing, NAT_PORT, Setting};
use super::story::{End, Place, Programs};
use crate::packet::kernel::Kernel;
use crate::packet::scene::{INTERFACE, Scene, SceneBackend, State, Way};

/// Where steering happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Steering {
    Xdp,
    Tc,
}

pub(super) struct Loaded<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) steering: Steering,
    /// The kernel ran every program on every frame.
    pub(super) ran_all: bool,
}

impl Loaded<'_> {
    /// What the program returned; none where the kernel has no test run for such a frame.
    fn run(&mut self, program: &str, frame: &mut Vec<u8>) -> Result<Option<u32>> {
        match self.kernel.run(program, frame) {
            Ok(run) => {
                *frame = run.frame;
                Ok(Some(run.action))
            }
            Err(error) => {
                let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
                if errno != Some(libc::EINVAL) {
                    return Err(error);
                }
                self.ran_all = false;
                Ok(None)
            }
        }
    }
}

/// The codes of tc (include/uapi/linux/pkt_cls.h).
fn of_tc(code: u32) -> Result<End> {
    match code.cast_signed() {
        -1 => Ok(End::Passed),
        2 => Ok(End::Dropped),
        7 => Ok(End::Sent),
        other => bail!("a program for tc returned {other}"),
    }
}

/// The codes of XDP (include/uapi/linux/bpf.h).
fn of_xdp(code: u32) -> Result<End> {
    match code {
        1 => Ok(End::Dropped),
        2 => Ok(End::Passed),
        3 | 4 => Ok(End::Sent),
        other => bail!("the program for XDP returned {other}"),
    }
}

impl Programs for Loaded<'_> {
    type Error = anyhow::Error;
    // A test run makes no such frame.
    const OPEN: bool = false;

    fn steer(&mut self, frame: &mut Vec<u8>, _: bool) -> Result<End> {
        let (program, end): (_, fn(u32) -> Result<End>) = match self.steering {
            Steering::Xdp => ("lb_xdp", of_xdp),
            Steering::Tc => ("lb_tc_steer", of_tc),
        };
        self.run(program, frame)?.map_or(Ok(End::Passed), end)
    }

    fn deliver(&mut self, frame: &mut Vec<u8>, place: Place) -> Result<()> {
        let generic = place == Place::ArrivesGenerically;
        let program = if generic { "lb_tc_deliver_g" } else { "lb_tc_deliver" };
        match self.run(program, frame)?.map_or(Ok(End::Passed), of_tc)? {
            End::Passed => Ok(()),
            end => bail!("{program} is to pass everything, but this was {end:?}"),
        }
    }

    fn leave(&mut self, frame: &mut Vec<u8>) -> Result<End> {
        self.run("lb_tc_egress", frame)?.map_or(Ok(End::Passed), of_tc)
    }
}

/// The setting as the kernel's maps and sockets get it. What only plain values can be told is left
/// out.
pub(super) fn scene(setting: &Setting) -> Scene {
    Scene {
        backends: setting.backends.iter().map(backend).collect(),
        lease: setting.lease,
        drop_unknown_ports: setting.drop_unknown_ports,
        nat_ports: (setting.nat_ports > 0).then_some((NAT_PORT, setting.nat_ports)),
        listening: setting.listening,
        connected: setting.connected,
        no_address: setting.no_address,
        stays: setting.stays,
        ..Scene::default()
    }
}

fn backend(backing: &Backing) -> SceneBackend {
    SceneBackend {
        reluctance: 0,
        name: backing.machine.name.to_owned(),
        delivery: match backing.delivery {
            Delivery::Local => Way::Local,
            Delivery::Direct => Way::Direct,
            Delivery::Nat => Way::Nat,
            Delivery::None | Delivery::Tunnel => Way::Unresolved,
        },
        state: match (backing.alive, backing.accepts) {
            (true, true) => State::Up,
            (false, true) => State::Distrusted,
            (true, false) => State::Draining,
            (false, false) => State::Down,
        },
        interface: INTERFACE + u32::from(backing.elsewhere),
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::{BACKENDS, CLIENT, VIP};
    use crate::packet::names;

    #[test]
    fn machines_are_the_fixtures() {
        for machine in BACKENDS.into_iter().chain([CLIENT, VIP]) {
            assert_eq!(names::mac(machine.name).unwrap(), machine.mac, "{}", machine.name);
            for family in [4, 6] {
                let address = names::address(machine.name, family).unwrap();
                assert_eq!(address, machine.address(family), "{}", machine.name);
            }
        }
    }
}
