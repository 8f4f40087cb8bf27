//! Kernel switches that decide whether an address can be held, read from `/proc/sys/net` of the
//! calling thread's network namespace. Reads only: what an administrator set stays set.

use std::fs;
use std::path::Path;

/// Why an interface can't hold an IPv6 VIP, as a sentence with the remedy; `None` if it can.
pub fn ipv6_obstacle(interface: &str) -> Option<String> {
    let conf = Path::new("/proc/sys/net/ipv6/conf");
    if !conf.is_dir() {
        let remedy = "remove ipv6.disable=1 from the kernel's command line, or the IPv6 address";
        return Some(format!("the kernel has no IPv6: {remedy} from virtual_addresses"));
    }
    // Local routes live on lo, whatever the interface.
    for name in [interface, "lo"] {
        let disabled = fs::read_to_string(conf.join(name).join("disable_ipv6"));
        if disabled.is_ok_and(|value| value.trim() != "0") {
            return Some(format!(
                "IPv6 is disabled on {name}: run sysctl -w net.ipv6.conf.{name}.disable_ipv6=0, \
                 or remove the IPv6 address from virtual_addresses"
            ));
        }
    }
    None
}
