//! Scenarios: the load balancer at work in the lab, each a list of claims with what was seen. One
//! file for each; their names are what `lb-lab run` takes.

mod agent_kill;
mod attach;
pub mod cluster;
mod cold_start;
mod datagrams;
mod dead_backend;
pub mod demo;
mod direct;
mod discovery;
mod doctor;
mod drain;
mod duet;
mod election;
mod evidence;
mod explain;
pub(crate) mod failover;
mod false_verdict;
mod flap;
mod fragments;
mod health_https;
mod health_script;
mod host_clients;
mod icmp;
mod import;
mod jumbo;
mod kernels;
mod limits;
mod migrate;
mod modes;
mod mtu;
mod narrow_link;
mod nat;
mod nat_failover;
mod notify;
mod owner;
mod passage;
mod passive;
mod path_check;
mod reload;
mod reload_vrrp;
mod restart;
mod role_move;
mod rolling_restart;
mod scale;
mod set_change;
pub mod shape;
mod slow_start;
mod split_brain;
pub mod stage;
mod stale_neighbour;
mod syn_flood;
pub(crate) mod tally;
mod thousand_backends;
mod udp;
mod upgrade;
mod vip_deleted;
mod vip_taken;
mod virtio;
mod vlan;
mod vrrp_frr;
mod vrrp_keepalived;
mod vrrp_routers;
mod vrrp_three;
mod vrrp_track;
mod vrrp_trouble;
mod vrrp_virtual_mac;
mod vrrp_vlan;
mod wire;

use std::time::Duration;

use anyhow::{Context as _, Result};

use stage::{Setting, Stage};

/// A scenario that takes longer hangs: every wait in one is bounded by itself.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Scenarios that mostly wait for the timers of others, and may do so beside one another.
pub const PATIENT: &[&str] = &[
    "nat-failover",
    "set-change",
    "false-verdict",
    "drain",
    "rolling-restart",
    "health-script",
    "path-check",
    "vrrp-keepalived-v2",
    "vrrp-keepalived-v3",
    "vrrp-keepalived-unicast",
    "vrrp-keepalived-vmac",
    "vrrp-frr-v3",
    "vrrp-track",
    "vip-taken",
    "migrate",
    "import",
    "discovery",
    "vrrp-trouble",
    "vrrp-three",
    "doctor",
];

pub struct Scenario {
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    run: fn(&mut Stage) -> Result<()>,
}

pub static ALL: &[Scenario] = &[
    Scenario {
        name: "direct",
        about: "frames are carried to the backends' nodes unchanged, replies go straight back",
        run: direct::ipv4,
    },
    Scenario { name: "ipv6", about: "the same over IPv6", run: direct::ipv6 },
    Scenario {
        name: "nat",
        about: "backends that run nothing of ours, TCP and UDP, IPv4 and IPv6",
        run: nat::run,
    },
    Scenario {
        name: "mtu",
        about: "servers learn of a narrow path by ICMP errors, on other nodes and behind NAT",
        run: mtu::run,
    },
    Scenario {
        name: "jumbo",
        about: "frames of 9000 bytes, in several buffers of native XDP, direct and by NAT",
        run: jumbo::run,
    },
    Scenario {
        name: "icmp",
        about: "echo to the VIP, and answers to packets that go no further",
        run: icmp::run,
    },
    Scenario {
        name: "fragments",
        about: "datagrams in pieces, and packets behind IPv6 extension headers",
        run: fragments::run,
    },
    Scenario {
        name: "udp",
        about: "ordinary UDP servers answer as the VIP and see the client",
        run: udp::run,
    },
    Scenario {
        name: "datagrams",
        about: "datagrams that stay with their server, and QUIC connection ids that name one",
        run: datagrams::run,
    },
    Scenario {
        name: "host-clients",
        about: "the nodes' own processes reach the VIP, held or not",
        run: host_clients::run,
    },
    Scenario {
        name: "generic",
        about: "a veth, for which the agent takes generic XDP, with the offloads as they come",
        run: modes::generic,
    },
    Scenario {
        name: "tc-only",
        about: "no XDP at all, with the cards' offloads as they come",
        run: modes::tc_only,
    },
    Scenario {
        name: "attach",
        about: "native XDP, generic XDP and tc, each on its own node and on the Active one",
        run: attach::run,
    },
    Scenario {
        name: "cold-start",
        about: "a node that starts attracts nobody before it knows its backends' MACs",
        run: cold_start::run,
    },
    Scenario {
        name: "kernels",
        about: "the same binaries on this kernel and on those that the registries offer, in QEMU",
        run: kernels::run,
    },
    Scenario {
        name: "stale-neighbour",
        about: "frames reach a node that does not hold the VIP",
        run: stale_neighbour::run,
    },
    Scenario {
        name: "set-change",
        about: "a backend leaves, joins, dies and is configured away under load",
        run: set_change::run,
    },
    Scenario {
        name: "false-verdict",
        about: "a node thinks all others dead, although they serve, under load",
        run: false_verdict::run,
    },
    Scenario {
        name: "health-https",
        about: "servers that say that they are not well get no new clients; certificates are verified",
        run: health_https::run,
    },
    Scenario {
        name: "health-script",
        about: "what a script finds out counts; one that hangs, is gone or could be changed by others disturbs nobody",
        run: health_script::run,
    },
    Scenario {
        name: "path-check",
        about: "a node whose programs are detached gets no new connections, though its server answers; attached it is back",
        run: path_check::run,
    },
    Scenario {
        name: "dead-backend",
        about: "clients that wait are told when their backend dies; nginx and haproxy beside",
        run: dead_backend::run,
    },
    Scenario {
        name: "discovery",
        about: "backends from DNS and from EndpointSlices come, go and stay under load, while those who tell of them fail",
        run: discovery::run,
    },
    Scenario {
        name: "passive",
        about: "a backend that refuses its clients, or leaves them unanswered, is out before its check is due",
        run: passive::run,
    },
    Scenario {
        name: "slow-start",
        about: "a backend that comes back gets more and more of its clients, directly and through NAT",
        run: slow_start::run,
    },
    Scenario {
        name: "explain",
        about: "what lbctl explain, flows and events say of connections is what becomes of them",
        run: explain::run,
    },
    Scenario {
        name: "drain",
        about: "backends are drained by hand, directly and through NAT: no new clients, none lost, all counted",
        run: drain::run,
    },
    Scenario {
        name: "reload-under-load",
        about: "a thousand changed files are taken over under load: nothing is lost, nothing begins anew",
        run: reload::run,
    },
    Scenario {
        name: "reload-vrrp",
        about: "nodes, priorities, intervals and virtual addresses change by reloads under load; nobody loses the role",
        run: reload_vrrp::run,
    },
    Scenario {
        name: "restart-under-load",
        about: "agents end or are killed, and come back, one after the other under load",
        run: restart::run,
    },
    Scenario {
        name: "rolling-restart",
        about: "all three backends one after the other, with rebalance: idle connections go where new ones go",
        run: rolling_restart::run,
    },
    Scenario {
        name: "thousand-backends",
        about: "one agent checks a thousand servers by HTTPS, without bursts; a quarter falls silent, then all",
        run: thousand_backends::run,
    },
    Scenario {
        name: "upgrade-under-load",
        about: "agents are followed by other versions under load, in place and not, also with another layout; or not at all",
        run: upgrade::run,
    },
    Scenario {
        name: "agent-kill",
        about: "the agents are killed, stay away and come back under load",
        run: agent_kill::run,
    },
    Scenario {
        name: "failover-crash",
        about: "the Active node dies, again and again, and VRRP moves the VIP",
        run: failover::crash,
    },
    Scenario {
        name: "failover-resign",
        about: "the Active node resigns, which costs nothing",
        run: failover::resign,
    },
    Scenario {
        name: "failover-agent-kill",
        about: "the Active node's agent is killed, and cannot keep the VIP",
        run: failover::agent_kill,
    },
    Scenario {
        name: "failover-agent-stop",
        about: "the Active node's agent is stopped, and wakes as a Backup",
        run: failover::agent_stop,
    },
    Scenario {
        name: "nat-failover",
        about: "thousands of connections through NAT, some of which only listen, while the VIP moves and comes back",
        run: nat_failover::run,
    },
    Scenario {
        name: "split-brain",
        about: "a Backup that hears nothing becomes Active too, then hears again, under load",
        run: split_brain::run,
    },
    Scenario {
        name: "vip-deleted",
        about: "somebody deletes the VIPs from the Active node, again and again, under load",
        run: vip_deleted::run,
    },
    Scenario {
        name: "flap",
        about: "the Active node's link goes down and up, fast and slowly, under load",
        run: flap::run,
    },
    Scenario {
        name: "vrrp-keepalived-v2",
        about: "beside a real keepalived with the files of today's clusters: version 2, a password",
        run: vrrp_keepalived::version_2,
    },
    Scenario {
        name: "vrrp-keepalived-v3",
        about: "beside a real keepalived: version 3",
        run: vrrp_keepalived::version_3,
    },
    Scenario {
        name: "vrrp-keepalived-unicast",
        about: "beside a real keepalived with the files of today's clusters: by unicast",
        run: vrrp_keepalived::unicast,
    },
    Scenario {
        name: "vrrp-routers",
        about: "several virtual routers on several links, each on its own node",
        run: vrrp_routers::run,
    },
    Scenario {
        name: "vlan",
        about: "services in a VLAN and in one within another, by carrying and by NAT",
        run: vlan::run,
    },
    Scenario {
        name: "vrrp-vlan",
        about: "a virtual router in each of two VLANs of one wire, each on its own node",
        run: vrrp_vlan::run,
    },
    Scenario {
        name: "vrrp-trouble",
        about: "wrong, forged and strange advertisements are counted and said, and change nothing",
        run: vrrp_trouble::run,
    },
    Scenario {
        name: "vrrp-frr-v3",
        about: "beside a real FRR: version 3, IPv4 and IPv6",
        run: vrrp_frr::run,
    },
    Scenario {
        name: "vrrp-three",
        about: "keepalived, FRR and ours in one virtual router, each Active in turn",
        run: vrrp_three::run,
    },
    Scenario {
        name: "vrrp-virtual-mac",
        about: "the VIPs' MAC is the virtual router's and moves with them, under load",
        run: vrrp_virtual_mac::run,
    },
    Scenario {
        name: "vrrp-keepalived-vmac",
        about: "beside a real keepalived with `use_vmac`: both with the virtual router's MAC",
        run: vrrp_virtual_mac::beside_keepalived,
    },
    Scenario {
        name: "migrate",
        about: "today's keepalived and nginx on three masters, replaced node by node under load",
        run: migrate::run,
    },
    Scenario {
        name: "import",
        about: "agents start with what lbctl import makes of today's keepalived and nginx, and serve the same",
        run: import::run,
    },
    Scenario {
        name: "doctor",
        about: "lbctl doctor finds each fault that is made, its remedy makes it go, and a sound node gives no finding",
        run: doctor::run,
    },
    Scenario {
        name: "notify",
        about: "hooks are told of every change of role, although they fail and the agent is killed",
        run: notify::run,
    },
    Scenario {
        name: "vrrp-track",
        about: "what a node tracks fails: it resigns, or lowers its priority, under load",
        run: vrrp_track::run,
    },
    Scenario {
        name: "vip-taken",
        about: "another machine has the VIP: a node that asks before it takes over leaves it there",
        run: vip_taken::run,
    },
    Scenario {
        name: "limits",
        about: "lists of a million prefixes and rates of new connections refuse who is meant",
        run: limits::run,
    },
    Scenario {
        name: "syn-flood",
        about: "clients connect while spoofed SYNs take all that can be sent, beside nginx and haproxy",
        run: syn_flood::run,
    },
    Scenario {
        name: "role-move",
        about: "the role moves from node to node under load",
        run: role_move::run,
    },
    Scenario {
        name: "scale",
        about: "a million flows, a thousand services of a thousand backends, ten thousand changes",
        run: scale::run,
    },
];

/// They take the whole machine, so that only guests run them.
static IN_GUESTS: &[Scenario] =
    &[Scenario { name: "virtio", about: "native XDP on a virtio network card", run: virtio::run }];

/// # Errors
/// Where there is none of that name; the message lists them.
pub fn find(name: &str) -> Result<&'static Scenario> {
    let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    ALL.iter()
        .chain(IN_GUESTS)
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario `{name}`; there are {}", names.join(", ")))
}

impl Scenario {
    /// Whether it can be run with another interval between VRRP's advertisements.
    pub fn takes_interval(&self) -> bool {
        self.name.starts_with("failover-")
    }

    /// Whether it can be run with several times as much.
    pub fn takes_times(&self) -> bool {
        matches!(
            self.name,
            "scale"
                | "reload-under-load"
                | "restart-under-load"
                | "thousand-backends"
                | "nat-failover"
        )
    }

    /// Runs it. True where it is proven.
    ///
    /// # Errors
    /// Where the output is closed; what fails in the scenario is its verdict, not an error.
    pub fn run(&self, setting: &Setting) -> Result<bool> {
        let mut stage = Stage::open(self.name, self.about, setting)?;
        let outcome = (self.run)(&mut stage);
        stage.close(&outcome)
    }
}
