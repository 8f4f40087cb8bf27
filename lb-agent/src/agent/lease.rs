//! The holder's leases are the data path's: the two meet here, knowing nothing of one another.

use std::net::IpAddr;

use crate::dataplane::{DataPlaneError, Leases};
use crate::role::DataPath;

impl DataPath for Leases {
    type Error = DataPlaneError;

    fn tables_written(&self) -> bool {
        Self::tables_written(self)
    }

    fn set_lease(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), DataPlaneError> {
        self.set(vip, until_ns)
    }
}
