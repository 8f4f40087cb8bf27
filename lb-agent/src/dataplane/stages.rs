//! The programs that others go on with: put where those look for them.

use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::ProgramError;
use lb_common::layout::{map, stage};

use super::error::DataPlaneError;

/// By the map in which the program before it finds it, and where in that.
const STAGES: [(&str, u32, &str); 11] = [
    (map::XDP_STAGES, stage::RARE, "lb_xdp_rare"),
    (map::XDP_STAGES, stage::DEEP, "lb_xdp_deep"),
    (map::XDP_STAGES, stage::ANSWER, "lb_xdp_answer"),
    (map::XDP_STAGES, stage::COOKIE, "lb_xdp_cookie"),
    (map::XDP_STAGES, stage::STAY, "lb_xdp_stay"),
    (map::TC_STAGES, stage::STAY, "lb_tc_stay"),
    (map::TC_STAGES, stage::RARE, "lb_tc_rare"),
    (map::TC_STAGES, stage::DEEP, "lb_tc_deep"),
    (map::TC_STAGES, stage::ANSWER, "lb_tc_answer"),
    (map::TC_STAGES, stage::DELIVER_RARE, "lb_tc_deliver_rare"),
    (map::TC_STAGES, stage::EGRESS_RARE, "lb_tc_egress_rare"),
];

/// Connects those of the object's programs that are loaded. While a map is pinned or open it keeps what
/// is put there; an earlier agent's programs go with that.
///
/// # Errors
/// Where the object lacks one of them, or the kernel refuses it.
pub fn connect_stages(object: &mut Ebpf) -> Result<(), DataPlaneError> {
    for (map, index, name) in STAGES {
        let missing = |detail: String| DataPlaneError::Object { detail };
        let program = object
            .program(name)
            .ok_or_else(|| missing(format!("program {name} is missing")))?
            .fd()
            .and_then(|fd| fd.try_clone().map_err(Into::into));
        let program = match program {
            Err(ProgramError::NotLoaded) => continue,
            program => program.map_err(|error| missing(format!("program {name}: {error}")))?,
        };
        let stages = object.map_mut(map).ok_or_else(|| missing(format!("map {map} is missing")))?;
        ProgramArray::try_from(stages)
            .and_then(|mut stages| stages.set(index, &program, 0))
            .map_err(|error| DataPlaneError::map("writing", map, error))?;
    }
    Ok(())
}
