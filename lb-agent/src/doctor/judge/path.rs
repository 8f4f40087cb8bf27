//! How large packets may be on the way to the other nodes: what is carried to them is as large as this node's link
//! takes, and nobody can cut it.

use std::net::IpAddr;

use crate::finding::Finding;

/// What echoes said of the way to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Way {
    pub(in crate::doctor) node: String,
    pub(in crate::doctor) address: IpAddr,
    pub(in crate::doctor) interface: String,
    /// Of that interface.
    pub(in crate::doctor) mtu: u32,
    /// Sizes of packets that came back; none where it could not be asked.
    pub(in crate::doctor) answered: Result<Vec<u32>, String>,
}

pub(in crate::doctor) fn judge(way: &Way) -> Finding {
    const NAME: &str = "path_mtu";
    let Way { node, address, interface, mtu, answered } = way;
    let subject = format!("packets to {node} ({address})");
    let answered = match answered {
        Ok(answered) => answered,
        Err(why) => return Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor")),
    };
    match answered.iter().max() {
        None => {
            let why = "it does not answer echoes: it is off, or a firewall drops them";
            let ask = format!("ping -c 3 {address}");
            Finding::not_looked_at(NAME, subject, why, Some(&ask))
        }
        Some(largest) if largest >= mtu => Finding::good(
            NAME,
            subject,
            format!("packets of {mtu} bytes, the MTU of {interface}, get there and back"),
        ),
        Some(largest) => Finding::bad(
            NAME,
            subject,
            format!(
                "packets of {mtu} bytes, the MTU of {interface}, do not get there and back, those of {largest} do: \
                 clients' large packets that are carried to it are lost"
            ),
            format!(
                "ip link set dev {interface} mtu {largest} here, or mtu {mtu} on {node} and all between"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn a_narrow_way_is_told_by_the_size_that_passes() {
        let way = |answered| Way {
            node: "master2".to_owned(),
            address: [192, 168, 139, 134].into(),
            interface: "ens33".to_owned(),
            mtu: 9000,
            answered,
        };
        assert_eq!(judge(&way(Ok(vec![576, 1500, 9000]))).severity, Severity::Good);
        let narrow = judge(&way(Ok(vec![576, 1500])));
        assert_eq!(narrow.severity, Severity::Bad);
        assert!(narrow.remedy.unwrap().starts_with("ip link set dev ens33 mtu 1500 here"));
        // A node that is off says nothing of the way.
        assert_eq!(judge(&way(Ok(Vec::new()))).severity, Severity::NotLookedAt);
    }
}
