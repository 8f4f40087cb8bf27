//! One `vrrp_instance` of a node: what it says, as values with their places.

use std::net::IpAddr;
use std::time::Duration;

use super::directive::{Directive, Place};
use super::node::{command, name_of, weight, why};
use super::report::{Placed, Report};
use super::value::{address, number, only, seconds};

const MEANINGLESS: &[(&[&str], &str)] = &[
    (
        &[
            "garp_master_delay",
            "garp_master_repeat",
            "garp_master_refresh",
            "garp_master_refresh_repeat",
            "garp_lower_prio_delay",
            "garp_lower_prio_repeat",
            "garp_extra_if",
        ],
        "addresses are announced in bursts, and again after each rival's advertisement",
    ),
    (
        &["dont_track_primary"],
        "a node whose interface is down cannot be Active: the interface is always watched",
    ),
    (
        &["smtp_alert", "no_email_faults", "email_faults"],
        "no mails are sent: a [[notify]] runs a script, or calls a server, at each change",
    ),
    (&["debug"], "`lbctl vrrp` shows what a node sends, hears and refuses"),
    (
        &["lvs_sync_daemon_interface", "lvs_sync_daemon_inteface"],
        "there is no IPVS to keep in step",
    ),
    (
        &["strict_mode", "skip_check_adv_addr", "check_unicast_src"],
        "what is refused of advertisements is counted and named by `lbctl vrrp`",
    ),
    (
        &["accept", "no_accept"],
        "what a VIP answers is said by the services, and `data_path.unknown_ports` for the other ports",
    ),
    (
        &["native_ipv6", "linkbeat_use_polling", "promote_secondaries"],
        "it is so without being said",
    ),
];

const NOT_TAKEN: &[(&[&str], &str)] = &[
    (
        &[
            "notify_master",
            "notify_backup",
            "notify_fault",
            "notify_stop",
            "notify_deleted",
            "notify_master_rx_lower_pri",
        ],
        "a [[notify]] runs its script at every change, with the new state (active, backup, initialize) \
         as the third of four arguments: write one script that looks at it",
    ),
    (
        &["virtual_routes", "virtual_rules"],
        "routes and rules do not move with a VIP: set them up on each node",
    ),
    (&["track_process"], "watch the process by a [[track]] with a script"),
    (&["track_file"], "watch the file by a [[track]] with a script"),
    (&["track_bfd"], "there is no BFD: short advertisements notice a dead node as soon"),
    (
        &["mcast_dst_ip"],
        "advertisements go to the RFC's group: use `unicast = true` where that is in the way",
    ),
    (&["unicast_ttl", "ttl"], "advertisements are sent with a TTL of 255, as the RFC wants them"),
    (&["vmac_xmit_base", "vmac_addr", "use_ipvlan"], "see `virtual_mac` in docs/configuration.md"),
    (
        &[
            "kernel_rx_buf_size",
            "version_2_compat",
            "start_delay",
            "vrrp_startup_delay",
            "down_timer_adverts",
            "highest_other_prio",
            "promote_if",
        ],
        "there is no such setting",
    ),
];

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: Placed<String>,
    pub(super) version: Option<Placed<u8>>,
    /// Whether `state` is `MASTER`.
    pub(super) master: Option<Placed<bool>>,
    pub(super) interface: Option<Placed<String>>,
    /// `mcast_src_ip` or `unicast_src_ip`.
    pub(super) source: Option<Placed<IpAddr>>,
    pub(super) unicast: Option<Place>,
    pub(super) peers: Vec<Placed<IpAddr>>,
    pub(super) router_id: Option<Placed<u8>>,
    pub(super) priority: Option<Placed<u8>>,
    pub(super) nopreempt: Option<Place>,
    pub(super) preempt_delay: Option<Placed<Duration>>,
    pub(super) interval: Option<Placed<Duration>>,
    pub(super) auth_pass: Option<Placed<String>>,
    pub(super) addresses: Vec<Placed<IpAddr>>,
    /// Devices that addresses name.
    pub(super) devices: Vec<Placed<String>>,
    /// Names of scripts, with the weight where it is said here.
    pub(super) scripts: Vec<Placed<(String, Option<i16>)>>,
    pub(super) interfaces: Vec<Placed<(String, i16)>>,
    pub(super) notify: Vec<Placed<(Vec<String>, Option<String>)>>,
    pub(super) virtual_mac: Option<Place>,
    pub(super) silent_to_rivals: Option<Place>,
}

/// None where it has no name or no block.
pub(super) fn read(block: &Directive, report: &mut Report) -> Option<Instance> {
    let Ok(name) = name_of(block) else {
        report.not_taken(block, "not understood: it should be vrrp_instance NAME { .. }");
        return None;
    };
    report.entered(block, "[vrrp]");
    let mut instance = Instance::new(Placed::new(name.to_owned(), &block.place));
    for directive in block.children() {
        if !instance.protocol(directive, report) && !instance.block(directive, report) {
            other(directive, report);
        }
    }
    Some(instance)
}

fn other(directive: &Directive, report: &mut Report) {
    let name = directive.name.as_str();
    match (why(name, MEANINGLESS), why(name, NOT_TAKEN)) {
        (Some(why), _) => report.meaningless(directive, why),
        (None, Some(why)) => report.not_taken(directive, why),
        (None, None) => report.unknown(directive),
    }
}

impl Instance {
    fn new(name: Placed<String>) -> Self {
        Self {
            name,
            version: None,
            master: None,
            interface: None,
            source: None,
            unicast: None,
            peers: Vec::new(),
            router_id: None,
            priority: None,
            nopreempt: None,
            preempt_delay: None,
            interval: None,
            auth_pass: None,
            addresses: Vec::new(),
            devices: Vec::new(),
            scripts: Vec::new(),
            interfaces: Vec::new(),
            notify: Vec::new(),
            virtual_mac: None,
            silent_to_rivals: None,
        }
    }

    /// Directives of one line. False where it is none of them.
    fn protocol(&mut self, directive: &Directive, report: &mut Report) -> bool {
        let d = directive;
        match d.name.as_str() {
            "state" => self.state(d, report),
            "interface" => {
                self.interface = report.take(d, "interface", only(d).map(str::to_owned));
            }
            "mcast_src_ip" => self.source = report.take(d, "node.address", address(d)),
            "unicast_src_ip" => {
                self.source = report.take(d, "node.address, vrrp.unicast = true", address(d));
                self.unicast = Some(d.place.clone());
            }
            "virtual_router_id" => {
                self.router_id = report.take(d, "vrrp.router_id", number(d, 1..=255));
            }
            "version" => self.version = report.take(d, "vrrp.version", number(d, 2..=3)),
            "priority" => self.priority = report.take(d, "node.priority", priority(d)),
            "nopreempt" => {
                self.nopreempt = Some(d.place.clone());
                report.taken(d, "vrrp.preempt");
            }
            "preempt" => report.taken(d, "vrrp.preempt"),
            "preempt_delay" => {
                self.preempt_delay = report.take(d, "vrrp.preempt_delay", seconds(d));
            }
            "advert_int" => {
                self.interval = report.take(d, "vrrp.advertisement_interval", seconds(d));
            }
            "use_vmac" => {
                self.virtual_mac = Some(d.place.clone());
                report.taken(d, "vrrp.virtual_mac = true, on an interface that the agent names");
            }
            "lower_prio_no_advert" => {
                self.silent_to_rivals = Some(d.place.clone());
                report.taken(d, "vrrp.answer_rivals = false");
            }
            "notify" => self.notify(d, report),
            _ => return false,
        }
        true
    }

    /// Directives with a block. False where it is none of them.
    fn block(&mut self, block: &Directive, report: &mut Report) -> bool {
        let outcome = match block.name.as_str() {
            "unicast_peer" => "vrrp.unicast = true: each other [[node]] is a peer",
            "authentication" => "vrrp.auth_pass",
            "virtual_ipaddress" | "virtual_ipaddress_excluded" => "virtual_addresses",
            "track_script" | "track_interface" => "[[track]]",
            _ => return false,
        };
        report.entered(block, outcome);
        if block.name == "unicast_peer" {
            self.unicast.get_or_insert(block.place.clone());
        }
        for directive in block.children() {
            match block.name.as_str() {
                "unicast_peer" => self.peer(directive, report),
                "authentication" => self.authentication(directive, report),
                "track_script" => self.track_script(directive, report),
                "track_interface" => self.track_interface(directive, report),
                _ => self.virtual_address(directive, report),
            }
        }
        true
    }

    fn state(&mut self, directive: &Directive, report: &mut Report) {
        let master = match only(directive) {
            Ok("MASTER") => true,
            Ok("BACKUP") => false,
            _ => {
                return report
                    .not_taken(directive, "not understood: it should be MASTER or BACKUP");
            }
        };
        self.master = Some(Placed::new(master, &directive.place));
        report.meaningless(directive, "every node begins as Backup, and the priorities decide");
    }

    fn peer(&mut self, directive: &Directive, report: &mut Report) {
        match (directive.name.parse(), &directive.arguments[..]) {
            (Ok(address), []) => {
                self.peers.push(Placed::new(address, &directive.place));
                report.taken(directive, "node.address, of its own file");
            }
            _ => report.not_taken(directive, "not understood: it should be an address"),
        }
    }

    fn authentication(&mut self, directive: &Directive, report: &mut Report) {
        match (directive.name.as_str(), only(directive)) {
            ("auth_type", Ok("PASS")) => report.taken(directive, "vrrp.auth_pass"),
            ("auth_type", Ok("AH")) => report.not_taken(
                directive,
                "IPsec AH is not spoken: use `auth_type PASS` on all, or version 3 without either",
            ),
            ("auth_pass", Ok(password)) => {
                self.auth_pass = report.take(directive, "vrrp.auth_pass", Ok(password.to_owned()));
            }
            _ => report.not_taken_hidden(
                directive,
                "not understood: there should be auth_type PASS and auth_pass WORD, each on a line",
            ),
        }
    }

    /// `ADDRESS[/LENGTH] [brd ..] [dev ..] [scope ..] [label ..] ..`.
    fn virtual_address(&mut self, directive: &Directive, report: &mut Report) {
        let (text, length) = match directive.name.split_once('/') {
            Some((text, length)) => (text, Some(length)),
            None => (directive.name.as_str(), None),
        };
        let (Ok(address), true) =
            (text.parse::<IpAddr>(), length.is_none_or(|length| length.parse::<u8>().is_ok()))
        else {
            return report.not_taken(directive, "not understood: it should be an address");
        };
        self.addresses.push(Placed::new(address, &directive.place));
        let mut aside = Vec::new();
        if length.is_some_and(|length| !matches!(length, "32" | "128")) {
            aside.push("the prefix length");
        }
        let mut words = directive.arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "dev" => {
                    let device = words.next().cloned().unwrap_or_default();
                    self.devices.push(Placed::new(device, &directive.place));
                }
                "brd" | "broadcast" | "scope" | "label" | "peer" | "preferred_lft" | "metric" => {
                    words.next();
                    aside.push(word);
                }
                "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" | "no_track" | "use-vmac" => {
                    aside.push(word);
                }
                unknown => report.part_not_taken(directive, unknown, "not understood"),
            }
        }
        report.taken(
            directive,
            match aside.is_empty() {
                true => "virtual_addresses".to_owned(),
                false => format!(
                    "virtual_addresses; {} has no meaning: a VIP is held as an address alone",
                    aside.join(", ")
                ),
            },
        );
    }

    /// `NAME [weight N]`.
    fn track_script(&mut self, directive: &Directive, report: &mut Report) {
        match own_weight(directive) {
            Ok(weight) => {
                let value = (directive.name.clone(), weight);
                self.scripts.push(Placed::new(value, &directive.place));
                report.taken(directive, "[[track]]");
            }
            Err(why) => report.not_taken(directive, &why),
        }
    }

    /// `INTERFACE [weight N]`.
    fn track_interface(&mut self, directive: &Directive, report: &mut Report) {
        match own_weight(directive) {
            Ok(weight) => {
                let value = (directive.name.clone(), weight.unwrap_or(0));
                self.interfaces.push(Placed::new(value, &directive.place));
                report.taken(directive, "[[track]]");
            }
            Err(why) => report.not_taken(directive, &why),
        }
    }

    /// `SCRIPT [USER [GROUP]]`.
    fn notify(&mut self, directive: &Directive, report: &mut Report) {
        let (script, user) = match directive.arguments.split_first() {
            Some((script, [])) => (script, None),
            Some((script, [user])) => (script, Some(user.clone())),
            _ => {
                return report
                    .not_taken(directive, "not understood: it should be a script and its user");
            }
        };
        match command(std::slice::from_ref(script)) {
            Ok(words) => {
                self.notify.push(Placed::new((words, user), &directive.place));
                report.taken(directive, "[[notify]]");
            }
            Err(why) => report.not_taken(directive, &why),
        }
    }
}

fn own_weight(directive: &Directive) -> Result<Option<i16>, String> {
    match directive.arguments.split_first() {
        None => Ok(None),
        Some((word, rest)) if word == "weight" => weight(rest).map(Some),
        Some(_) => Err("not understood: it should be a name, and `weight` and a number".to_owned()),
    }
}

/// 255 is the owner's of an address, which nobody is of a VIP.
fn priority(directive: &Directive) -> Result<u8, String> {
    match number(directive, 1..=255)? {
        255 => Err("255 is for the owner of an address: write a priority up to 254".to_owned()),
        priority => Ok(priority),
    }
}
