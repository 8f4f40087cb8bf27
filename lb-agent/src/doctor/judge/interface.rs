//! An interface by itself: whether it is there, what its driver does, and the settings of the kernel for it.

use crate::finding::Finding;

/// What was seen of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Seen {
    pub(in crate::doctor) name: String,
    pub(in crate::doctor) there: bool,
    pub(in crate::doctor) up: bool,
    pub(in crate::doctor) running: bool,
    pub(in crate::doctor) ethernet: bool,
    pub(in crate::doctor) mtu: u32,
    pub(in crate::doctor) veth: bool,
    pub(in crate::doctor) driver: Option<String>,
    /// Offloads that matter and that are on, by the names that ethtool has for them; none where it does not tell.
    pub(in crate::doctor) offloads: Option<Vec<String>>,
    /// Whether native XDP comes first in the file.
    pub(in crate::doctor) native_wanted: bool,
    /// Whether the file leaves native XDP out.
    pub(in crate::doctor) native_unwanted: bool,
    /// `enum netdev_xdp_act`, as the driver says; none where the kernel has no question for it (before 6.3).
    pub(in crate::doctor) features: Option<u64>,
    /// What a trial of native XDP said, where one was wanted.
    pub(in crate::doctor) trial: Option<Result<(), String>>,
    /// The stricter of `all` and the interface's own; none where the kernel does not tell.
    pub(in crate::doctor) rp_filter: Option<u8>,
    /// The other interfaces that routes leave by.
    pub(in crate::doctor) other_ways: Vec<String>,
    /// Why it cannot have an IPv6 VIP, where there is one for it.
    pub(in crate::doctor) ipv6_obstacle: Option<String>,
    /// Whether there is an IPv6 VIP.
    pub(in crate::doctor) ipv6_wanted: bool,
}

/// Of `features`: it runs programs, and takes frames of several buffers (linux/netdev.h).
const BASIC: u64 = 1;
const SEVERAL_BUFFERS: u64 = 1 << 5;
/// The least that IPv6 needs (RFC 8200, section 5).
const IPV6_MTU: u32 = 1280;
/// What one buffer of a page holds behind XDP's headroom: drivers without frames of several buffers take no more.
const ONE_BUFFER_MTU: u32 = 3498;

pub(in crate::doctor) fn judge(seen: &Seen) -> Vec<Finding> {
    let name = &seen.name;
    let subject = format!("interface {name}");
    if !seen.there {
        return vec![Finding::bad(
            "interface",
            subject,
            "there is none of that name",
            "ip -brief link lists them: correct `interface` in the file, or name it with --interface",
        )];
    }
    let mut findings = vec![link(seen, subject)];
    findings.extend(driver(seen));
    findings.push(offloads(seen));
    findings.push(mtu(seen));
    findings.push(rp_filter(seen));
    if seen.ipv6_wanted {
        let subject = format!("IPv6 on {name}");
        findings.push(match &seen.ipv6_obstacle {
            None => Finding::good("ipv6", subject, "on, there and on lo"),
            Some(sentence) => {
                let (found, remedy) = sentence.split_once(": ").unwrap_or((sentence, sentence));
                Finding::bad("ipv6", subject, found, remedy.trim_start_matches("run "))
            }
        });
    }
    findings
}

fn link(seen: &Seen, subject: String) -> Finding {
    let name = &seen.name;
    match seen {
        Seen { ethernet: false, .. } => Finding::bad(
            "interface",
            subject,
            "it is no Ethernet: it has no MAC address to carry frames to",
            "choose another `interface`",
        ),
        Seen { up: false, .. } => {
            Finding::bad("interface", subject, "it is down", format!("ip link set dev {name} up"))
        }
        Seen { running: false, .. } => Finding::bad(
            "interface",
            subject,
            "it is up and has no carrier",
            "look at the cable, the switch, or the port that the virtual machine has",
        ),
        _ => Finding::good("interface", subject, "up, with a carrier"),
    }
}

fn driver(seen: &Seen) -> Option<Finding> {
    const NAME: &str = "xdp_mode";
    let name = &seen.name;
    let subject = format!("XDP on {name}");
    let driver = seen.driver.as_deref().unwrap_or("unknown");
    Some(match &seen.trial {
        Some(Ok(())) => {
            Finding::good(NAME, subject, format!("the driver ({driver}) ran a program natively"))
        }
        Some(Err(why)) => Finding::doubtful(
            NAME,
            subject,
            format!("not native in the driver ({driver}): {why}; generic XDP will be taken"),
            native_remedy(why, name),
        ),
        None if seen.veth && seen.native_wanted => Finding::doubtful(
            NAME,
            subject,
            "native on a veth, whose other end leaves checksums open, which native XDP cannot tell",
            "leave `modes` in [data_path] out",
        ),
        None if seen.veth => {
            Finding::good(NAME, subject, "a veth: generic XDP suits it, and is taken first")
        }
        None => announced(seen, subject),
    })
}

/// By what the driver says of itself.
fn announced(seen: &Seen, subject: String) -> Finding {
    const NAME: &str = "xdp_mode";
    let (name, mtu) = (&seen.name, seen.mtu);
    let driver = seen.driver.as_deref().unwrap_or("unknown");
    let attempt =
        "lbctl doctor --try-attach, while no traffic matters; or lbctl status, once an agent runs";
    match seen.features {
        _ if seen.native_unwanted => {
            Finding::good(NAME, subject, "the file does not want it natively")
        }
        None => Finding::not_looked_at(
            NAME,
            subject,
            format!(
                "whether the driver ({driver}) runs it natively shows only when a program is attached, which takes \
                 the link down for a moment with some drivers"
            ),
            Some(attempt),
        ),
        Some(features) if features & BASIC == 0 => Finding::doubtful(
            NAME,
            subject,
            format!(
                "the driver ({driver}) has none, as it says: generic XDP will be taken, which costs more"
            ),
            "another card or driver; or modes = [\"generic\", \"tc\"] in [data_path], where that is what is meant",
        ),
        Some(features) if features & SEVERAL_BUFFERS == 0 && mtu > ONE_BUFFER_MTU => {
            Finding::doubtful(
                NAME,
                subject,
                format!(
                    "the driver ({driver}) takes no frames of several buffers, as it says, and the MTU is {mtu}: native \
                     XDP will be refused, and generic XDP taken"
                ),
                format!("ip link set dev {name} mtu 1500"),
            )
        }
        Some(_) => Finding::good(
            NAME,
            subject,
            format!(
                "the driver ({driver}) runs it natively, as it says; --try-attach has it do so"
            ),
        ),
    }
}

fn native_remedy(why: &str, name: &str) -> String {
    if why.contains("MTU") {
        return format!("ip link set dev {name} mtu 1500");
    }
    format!(
        "ethtool -K {name} lro off, and ethtool -L {name} combined N with two queues for each CPU \
         (virtio); where the driver has no XDP at all, generic XDP is what there is"
    )
}

fn offloads(seen: &Seen) -> Finding {
    const NAME: &str = "offloads";
    let name = &seen.name;
    let subject = format!("offloads of {name}");
    let Some(on) = &seen.offloads else {
        return Finding::not_looked_at(NAME, subject, "the driver does not tell them", None);
    };
    // Software GRO comes behind native XDP, and generic XDP takes its packets. Hardware GRO is switched off by the
    // driver for a native program, or keeps it from one, which the attachment says.
    if !on.iter().any(|offload| offload == "rx-lro") {
        return Finding::good(NAME, subject, "none that joins packets before XDP sees them");
    }
    Finding::doubtful(
        NAME,
        subject,
        "rx-lro joins packets in the card: native XDP is refused, and what is carried on is larger than the link \
         takes",
        format!("ethtool -K {name} lro off"),
    )
}

fn mtu(seen: &Seen) -> Finding {
    const NAME: &str = "mtu";
    let (name, mtu) = (&seen.name, seen.mtu);
    let subject = format!("MTU of {name}");
    if seen.ipv6_wanted && mtu < IPV6_MTU {
        let found = format!("{mtu}: IPv6 needs {IPV6_MTU}");
        return Finding::bad(NAME, subject, found, format!("ip link set dev {name} mtu 1500"));
    }
    if mtu > ONE_BUFFER_MTU && !seen.veth {
        let found = format!(
            "{mtu}; where the driver has no frames of several buffers, native XDP ends at some \
             {ONE_BUFFER_MTU} and generic XDP is taken (lbctl status says so)"
        );
        return Finding::good(NAME, subject, found);
    }
    Finding::good(NAME, subject, mtu.to_string())
}

/// What is carried here has its client's address as its source. A strict filter drops it where the way
/// back to that client leaves by another interface.
fn rp_filter(seen: &Seen) -> Finding {
    const NAME: &str = "rp_filter";
    let name = &seen.name;
    let subject = format!("reverse-path filter of {name}");
    match seen.rp_filter {
        None => Finding::not_looked_at(NAME, subject, "the kernel does not tell", None),
        Some(1) if !seen.other_ways.is_empty() => Finding::doubtful(
            NAME,
            subject,
            format!(
                "strict, and routes leave by {} too: packets of clients whose way back is there are dropped \
                 silently behind XDP, those of backends behind NAT too",
                seen.other_ways.join(", ")
            ),
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        ),
        Some(1) => Finding::good(NAME, subject, "strict; every route leaves by this interface"),
        Some(2) => Finding::good(NAME, subject, "loose"),
        Some(_) => Finding::good(NAME, subject, "off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    fn sound() -> Seen {
        Seen {
            name: "ens33".to_owned(),
            there: true,
            up: true,
            running: true,
            ethernet: true,
            mtu: 1500,
            veth: false,
            driver: Some("virtio_net".to_owned()),
            offloads: Some(vec!["rx-gro".to_owned()]),
            native_wanted: true,
            native_unwanted: false,
            features: Some(BASIC),
            trial: Some(Ok(())),
            rp_filter: Some(1),
            other_ways: Vec::new(),
            ipv6_obstacle: None,
            ipv6_wanted: true,
        }
    }

    fn of(seen: &Seen, name: &str) -> Finding {
        judge(seen).into_iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn a_sound_interface_gives_no_finding() {
        assert!(
            judge(&sound()).iter().all(|f| f.severity == Severity::Good),
            "{:?}",
            judge(&sound())
        );
    }

    #[test]
    fn a_strict_filter_matters_only_where_there_is_another_way() {
        let two = Seen { other_ways: vec!["ens34".to_owned()], ..sound() };
        let found = of(&two, "rp_filter");
        assert_eq!(found.severity, Severity::Doubtful);
        assert_eq!(found.remedy.as_deref(), Some("sysctl -w net.ipv4.conf.ens33.rp_filter=2"));
        assert_eq!(of(&Seen { rp_filter: Some(2), ..two }, "rp_filter").severity, Severity::Good);
    }

    #[test]
    fn what_joins_packets_in_the_card_is_told_with_the_words_that_ethtool_takes() {
        let on = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let found = of(&Seen { offloads: on(&["rx-gro", "rx-lro"]), ..sound() }, "offloads");
        assert_eq!(found.remedy.as_deref(), Some("ethtool -K ens33 lro off"));
        let usual = Seen { offloads: on(&["rx-gro", "rx-gro-hw"]), ..sound() };
        assert_eq!(of(&usual, "offloads").severity, Severity::Good);
        let silent = Seen { offloads: None, ..sound() };
        assert_eq!(of(&silent, "offloads").severity, Severity::NotLookedAt);
    }

    #[test]
    fn a_driver_is_believed_that_says_what_it_can_do() {
        let says = |features, mtu| {
            let seen = Seen { trial: None, features: Some(features), mtu, ..sound() };
            of(&seen, "xdp_mode").severity
        };
        assert_eq!(says(BASIC, 1500), Severity::Good);
        assert_eq!(says(0, 1500), Severity::Doubtful);
        assert_eq!(says(BASIC, 9000), Severity::Doubtful);
        assert_eq!(says(BASIC | SEVERAL_BUFFERS, 9000), Severity::Good);
        // Who does not want it is not told.
        let unwanted = Seen { trial: None, features: Some(0), native_unwanted: true, ..sound() };
        assert_eq!(of(&unwanted, "xdp_mode").severity, Severity::Good);
    }

    #[test]
    fn native_xdp_is_not_tried_unasked_and_its_refusal_is_explained() {
        assert_eq!(
            of(&Seen { trial: None, features: None, ..sound() }, "xdp_mode").severity,
            Severity::NotLookedAt
        );
        let refused = Some(Err("the MTU is too large for XDP in this driver".to_owned()));
        let found = of(&Seen { trial: refused, mtu: 9000, ..sound() }, "xdp_mode");
        assert_eq!(found.remedy.as_deref(), Some("ip link set dev ens33 mtu 1500"));
    }

    #[test]
    fn a_veth_gets_native_xdp_only_by_mistake() {
        let veth = Seen { veth: true, trial: None, native_wanted: false, ..sound() };
        assert_eq!(of(&veth, "xdp_mode").severity, Severity::Good);
        let native = Seen { native_wanted: true, ..veth };
        assert_eq!(of(&native, "xdp_mode").severity, Severity::Doubtful);
    }

    #[test]
    fn an_interface_that_carries_nothing_is_bad() {
        for seen in [
            Seen { there: false, ..sound() },
            Seen { up: false, ..sound() },
            Seen { running: false, ..sound() },
            Seen { ethernet: false, ..sound() },
        ] {
            assert_eq!(of(&seen, "interface").severity, Severity::Bad, "{seen:?}");
        }
    }

    #[test]
    fn ipv6_needs_its_mtu_and_to_be_on() {
        assert_eq!(of(&Seen { mtu: 1200, ..sound() }, "mtu").severity, Severity::Bad);
        assert_eq!(
            of(&Seen { mtu: 1200, ipv6_wanted: false, ..sound() }, "mtu").severity,
            Severity::Good
        );
        let sentence = "IPv6 is disabled on ens33: run sysctl -w x=0, or remove it".to_owned();
        let found = of(&Seen { ipv6_obstacle: Some(sentence), ..sound() }, "ipv6");
        assert_eq!(found.remedy.as_deref(), Some("sysctl -w x=0, or remove it"));
    }
}
