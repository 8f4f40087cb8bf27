//! The programs that the steering ones go on with: put where those look for them.

use aya::Ebpf;
use aya::maps::ProgramArray;
use lb_common::layout::{map, stage};

use super::error::DataPlaneError;

/// By the map in which a steering program finds it.
const RARE: [(&str, &str); 2] = [(map::XDP_STAGES, "lb_xdp_rare"), (map::TC_STAGES, "lb_tc_rare")];

/// Connects the object's programs, once they are loaded. While a map is pinned or open it keeps what
/// is put there; an earlier agent's programs go with that.
///
/// # Errors
/// Where the object lacks one of them, or the kernel refuses it.
pub fn connect_stages(object: &mut Ebpf) -> Result<(), DataPlaneError> {
    for (map, name) in RARE {
        let missing = |detail: String| DataPlaneError::Object { detail };
        let program = object
            .program(name)
            .ok_or_else(|| missing(format!("program {name} is missing")))?
            .fd()
            .and_then(|fd| fd.try_clone().map_err(Into::into))
            .map_err(|error| missing(format!("program {name}: {error}")))?;
        let stages = object.map_mut(map).ok_or_else(|| missing(format!("map {map} is missing")))?;
        ProgramArray::try_from(stages)
            .and_then(|mut stages| stages.set(stage::RARE, &program, 0))
            .map_err(|error| DataPlaneError::map("writing", map, error))?;
    }
    Ok(())
}
