//! What else manages the interface and may take the VIP from it: systemd-networkd, NetworkManager, and another
//! program that speaks VRRP.

use crate::finding::Finding;

/// What networkd says of an interface (`/run/systemd/netif/links/INDEX`), and the settings of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Networkd {
    /// That text; none where networkd does not run or does not know the interface.
    pub(in crate::doctor) link: Option<String>,
    /// The `.network` file, and its drop-ins behind it.
    pub(in crate::doctor) files: Vec<String>,
}

/// The value that counts of a key in a text of `KEY=value` lines: the last one in the section, or the last one of
/// all without a section.
fn setting<'t>(
    texts: impl Iterator<Item = &'t str>,
    section: Option<&str>,
    key: &str,
) -> Option<&'t str> {
    let mut found = None;
    for text in texts {
        let mut here = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                here = name;
            } else if let Some((name, value)) = line.split_once('=')
                && name.trim() == key
                && section.is_none_or(|section| section == here)
            {
                found = Some(value.trim());
            }
        }
    }
    found
}

/// networkd drops addresses that it did not make when it configures an interface anew, unless it is to keep them.
pub(in crate::doctor) fn networkd(interface: &str, facts: &Networkd) -> Finding {
    const NAME: &str = "networkd";
    let subject = format!("systemd-networkd and {interface}");
    let Some(link) = facts.link.as_deref() else {
        return Finding::good(NAME, subject, "it does not run, or does not know the interface");
    };
    let state = setting(std::iter::once(link), None, "ADMIN_STATE").unwrap_or("unknown");
    if matches!(state, "unmanaged" | "linger") {
        return Finding::good(NAME, subject, "not managed by it");
    }
    let files = || facts.files.iter().map(String::as_str);
    let kept = setting(files(), Some("Network"), "KeepConfiguration").unwrap_or("no");
    if matches!(kept, "yes" | "static") {
        return Finding::good(
            NAME,
            subject,
            format!("managed, and KeepConfiguration={kept} leaves the VIP"),
        );
    }
    let file = setting(std::iter::once(link), None, "NETWORK_FILE").unwrap_or_default();
    let name = file.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("NAME.network");
    let folder = format!("/etc/systemd/network/{name}.d");
    Finding::doubtful(
        NAME,
        subject,
        format!(
            "managed by {}, with KeepConfiguration={kept}: whenever it configures the interface anew (its restart, \
             `networkctl reload`, a carrier that comes back) it deletes the VIP; the agent puts it back",
            if file.is_empty() { "it" } else { file }
        ),
        format!(
            "mkdir -p {folder} && printf '[Network]\\nKeepConfiguration=static\\n' > {folder}/lb.conf && \
             networkctl reload"
        ),
    )
}

/// NetworkManager, by the text of `/run/NetworkManager/devices/INDEX`; none where it does not run.
pub(in crate::doctor) fn network_manager(interface: &str, device: Option<&str>) -> Finding {
    const NAME: &str = "network_manager";
    let subject = format!("NetworkManager and {interface}");
    let managed = device.and_then(|text| setting(std::iter::once(text), Some("device"), "managed"));
    match (device, managed) {
        (None, _) => {
            Finding::good(NAME, subject, "it does not run, or does not know the interface")
        }
        (_, Some("true")) => Finding::doubtful(
            NAME,
            subject,
            "managed by it: whenever the connection is activated or applied anew (`nmcli connection up`, `nmcli \
             device reapply`) it deletes the VIP; the agent puts it back",
            format!(
                "printf '[keyfile]\\nunmanaged-devices=interface-name:{interface}\\n' > \
                 /etc/NetworkManager/conf.d/90-lb.conf && systemctl reload NetworkManager, where something else \
                 gives the interface its address; otherwise apply no connection while the node is Active"
            ),
        ),
        _ => Finding::good(NAME, subject, "not managed by it"),
    }
}

/// Programs on this node that speak VRRP themselves, by their names.
pub(in crate::doctor) fn speakers(found: &[(i32, String)]) -> Finding {
    const NAME: &str = "other_vrrp";
    let subject = "other VRRP on this node";
    let Some((_, first)) = found.first() else {
        return Finding::good(NAME, subject, "no keepalived or vrrpd runs");
    };
    let all: Vec<String> = found.iter().map(|(pid, name)| format!("{name} ({pid})")).collect();
    Finding::doubtful(
        NAME,
        subject,
        format!(
            "{}: with the same router_id it and an agent here do not hear one another, and both may hold the VIP",
            all.join(", ")
        ),
        format!(
            "systemctl disable --now {first}, before the agent is started here (docs/operations.md, migration)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    // Of Debian 12 (systemd 252).
    const LINK: &str = "# This is private data. Do not parse.\nADMIN_STATE=configured\nOPER_STATE=routable\n\
        CARRIER_STATE=carrier\nADDRESS_STATE=routable\nIPV4_ADDRESS_STATE=routable\n\
        NETWORK_FILE=/run/systemd/network/10-netplan-ens33.network\nREQUIRED_FOR_ONLINE=yes\n";
    const FILE: &str = "[Match]\nName=ens33\n\n[Network]\nLinkLocalAddressing=ipv6\nAddress=192.168.139.133/24\n\
        Gateway=192.168.139.2\n";
    // Of Fedora 40 (NetworkManager 1.46).
    const MANAGED: &str = "[device]\nmanaged=true\nconnection-uuid=5ac0dbd4-51a1-3e1c-9f5e-000000000000\n\
        nm-owned=0\nroute-metric-default-aspired=100\n";

    fn facts(link: Option<&str>, files: &[&str]) -> Networkd {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Networkd { link: link.map(str::to_owned), files }
    }

    #[test]
    fn networkd_deletes_the_vip_unless_it_is_told_to_keep_it() {
        let found = networkd("ens33", &facts(Some(LINK), &[FILE]));
        assert_eq!(found.severity, Severity::Doubtful);
        let remedy = found.remedy.unwrap();
        assert!(
            remedy.contains("/etc/systemd/network/10-netplan-ens33.network.d/lb.conf"),
            "{remedy}"
        );
        // The remedy, applied.
        let kept = "[Network]\nKeepConfiguration=static\n";
        let found = networkd("ens33", &facts(Some(LINK), &[FILE, kept]));
        assert_eq!(found.severity, Severity::Good, "{found:?}");
        // That is about leases.
        let dhcp = "[Network]\nKeepConfiguration=dhcp-on-stop\n";
        assert_eq!(
            networkd("ens33", &facts(Some(LINK), &[FILE, dhcp])).severity,
            Severity::Doubtful
        );
    }

    #[test]
    fn networkd_elsewhere_is_no_finding() {
        assert_eq!(networkd("ens33", &facts(None, &[])).severity, Severity::Good);
        let unmanaged = LINK.replace("configured", "unmanaged");
        assert_eq!(networkd("ens33", &facts(Some(&unmanaged), &[])).severity, Severity::Good);
    }

    #[test]
    fn network_manager_matters_where_it_manages_the_interface() {
        assert_eq!(network_manager("ens33", None).severity, Severity::Good);
        assert_eq!(network_manager("ens33", Some(MANAGED)).severity, Severity::Doubtful);
        let not = MANAGED.replace("managed=true", "managed=false");
        assert_eq!(network_manager("ens33", Some(&not)).severity, Severity::Good);
    }

    #[test]
    fn a_keepalived_on_this_node_is_told_with_its_process() {
        assert_eq!(speakers(&[]).severity, Severity::Good);
        let found = speakers(&[(812, "keepalived".to_owned())]);
        assert!(found.severity == Severity::Doubtful && found.found.contains("(812)"));
    }
}
