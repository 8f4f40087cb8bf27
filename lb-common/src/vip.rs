//! A VIP and the lease under which this node answers for it.

/// The value of the map `leases`. The map `vips` has its index for the VIP's
/// [`Address`](crate::Address), or a virtual router's MAC as
/// [`lease_key`](crate::virtual_mac::lease_key) writes it: a lease is renewed often, and an element
/// of a hash map cannot be changed under its readers
/// ([`ServiceVersions`](crate::service::ServiceVersions)).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip {
    /// ARP and ND for the VIP are answered, or frames sent with the MAC, while the kernel's
    /// monotonic clock (`CLOCK_MONOTONIC`, nanoseconds) is before this; 0 is never.
    pub lease_until_ns: u64,
}

const _: () = assert!(size_of::<Vip>() == 8);
