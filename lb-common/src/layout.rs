//! The version of the maps' layout, their names and sizes: a promise to whoever reads them.

/// Version of the layout of the pinned maps; part of the pin path (`/sys/fs/bpf/lb/v2`). Any
/// change of a key, a value or a meaning raises it.
pub const LAYOUT_VERSION: u32 = 2;

/// Version of the table contract: hash, seed, permutation, ranks. Nodes with different versions
/// would steer the same client differently.
pub const TABLE_VERSION: u32 = 2;

/// The maps' names as they are pinned.
pub mod map {
    pub const SETTINGS: &str = "settings";
    pub const ADDRESS_FILTER: &str = "address_filter";
    pub const VIPS: &str = "vips";
    pub const LEASES: &str = "leases";
    pub const INTERFACES: &str = "interfaces";
    pub const PEERS: &str = "peers";
    pub const SERVICES: &str = "services";
    pub const SERVICE_VERSIONS: &str = "svc_versions";
    pub const TABLES: &str = "tables";
    pub const BACKENDS: &str = "backends";
    pub const BACKEND_COUNTERS: &str = "bkd_counters";
    pub const COUNTERS: &str = "counters";
    pub const NAT_FLOWS: &str = "nat_flows";
    pub const UDP_REPLIES: &str = "udp_replies";
    pub const HOST_ORIGINS: &str = "host_origins";

    pub const FRAGMENTS: &str = "fragments";
    pub const DEEP: &str = "deep";
    pub const ANSWERS: &str = "answers";
    pub const RUNTIME: &str = "runtime";
    pub const XDP_STAGES: &str = "xdp_stages";
    pub const TC_STAGES: &str = "tc_stages";

    pub const PROTECTIONS: &str = "protections";
    pub const LISTS: &str = "lists";
    pub const RATES: &str = "rates";
    pub const CONNECTIONS: &str = "connections";
    pub const OPEN: &str = "open";
    pub const SYN_FLOOD: &str = "syn_flood";
    pub const SYN_LEFT: &str = "syn_left";

    pub const AFFINITIES: &str = "affinities";
    pub const SERVER_IDS: &str = "server_ids";
    pub const FLOWS: &str = "flows";

    pub const FAILURES: &str = "failures";
    pub const SYNS: &str = "syns";
    pub const BELL: &str = "bell";

    pub const ALL: [&str; 34] = [
        SETTINGS,
        ADDRESS_FILTER,
        VIPS,
        LEASES,
        INTERFACES,
        PEERS,
        SERVICES,
        SERVICE_VERSIONS,
        TABLES,
        BACKENDS,
        BACKEND_COUNTERS,
        COUNTERS,
        NAT_FLOWS,
        UDP_REPLIES,
        HOST_ORIGINS,
        FRAGMENTS,
        DEEP,
        ANSWERS,
        RUNTIME,
        XDP_STAGES,
        TC_STAGES,
        PROTECTIONS,
        LISTS,
        RATES,
        CONNECTIONS,
        OPEN,
        SYN_FLOOD,
        SYN_LEFT,
        AFFINITIES,
        SERVER_IDS,
        FLOWS,
        FAILURES,
        SYNS,
        BELL,
    ];
}

/// Elements of `xdp_stages` and `tc_stages`: programs that the steering ones go on with.
pub mod stage {
    /// For frames that are rare, at steering.
    pub const RARE: u32 = 0;
    /// For what the one before found a tuple in.
    pub const DEEP: u32 = 1;
    /// For packets that go no further, which are answered.
    pub const ANSWER: u32 = 2;
    /// For rare ones at delivery; in `tc_stages` only, like the next.
    pub const DELIVER_RARE: u32 = 3;
    /// For rare ones that leave.
    pub const EGRESS_RARE: u32 = 4;
    /// For SYNs in a flood; in `xdp_stages` only.
    pub const COOKIE: u32 = 5;
    /// For datagrams that stay where they went, or go where their connection id says.
    pub const STAY: u32 = 6;
}

/// Sizes that the object is compiled with; the agent may raise those marked so when it loads.
pub mod size {
    /// Raised by the agent with the configuration.
    pub const SERVICES: usize = 1024;
    /// Two for each service: the one in use and the one being prepared.
    pub const TABLES: usize = 2 * SERVICES;
    /// Raised by the agent with the configuration.
    pub const BACKENDS: usize = 16384;
    pub const VIPS: usize = 256;
    pub const PEERS: usize = 256;
    /// Entries, two for each flow. Set by `nat.flows`.
    pub const NAT_FLOWS: usize = 131_072;
    pub const UDP_REPLIES: usize = 65_536;
    pub const HOST_ORIGINS: usize = 65_536;
    /// Packets in pieces, for each of which one or two programs have an entry.
    pub const FRAGMENTS: usize = 65_536;
    /// As of tables: the one in use and the one being prepared, for each service.
    pub const PROTECTIONS: usize = 2 * SERVICES;
    /// As many: each may be another one's.
    pub const LISTS: usize = PROTECTIONS;
    /// Sources of new connections. Set by `limits.sources`.
    pub const RATES: usize = 65_536;
    /// Raised by the agent with the configuration.
    pub const CONNECTIONS: usize = 65_536;
    /// Clients' tuples. Set by `limits.datagram_flows`.
    pub const AFFINITIES: usize = 65_536;
    /// Connections of clients. Set by `limits.flows`.
    pub const FLOWS: usize = 131_072;
    /// As of backends.
    pub const SERVER_IDS: usize = BACKENDS;
    /// SYNs that are remembered to know one that comes again. Those of a second, where it has no more; of many more
    /// some are still there.
    pub const SYNS: usize = 16_384;
    /// Bytes, sixteen for each time that the agent is told.
    pub const BELL: usize = 65_536;
    /// Room for programs to come.
    pub const STAGES: usize = 8;
}
