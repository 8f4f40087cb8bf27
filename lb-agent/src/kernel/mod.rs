//! What the running kernel offers, against what the load balancer needs: for `lbctl doctor`, and for
//! one sentence when the agent starts. Loads nothing that stays and knows no map.

mod cookies;
mod feature;
mod finding;
mod probe;
mod release;

pub use cookies::no_cookies;
pub use feature::LOWEST;
pub use probe::{Knowledge, try_native_xdp};
pub use release::Release;
