//! What can be wrong with a configuration: one variant for each, its message, and its remedy.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use super::VrrpVersion;
use super::datagram::ServerId;
use super::protection::Prefix;
use super::value::{duration_text, is_prime, prime_from};

/// One thing that is wrong. The message says what; [`remedy`](Self::remedy) what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("this is not TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}` in {table}")]
    UnknownKey { key: String, table: &'static str, advice: KeyAdvice },
    #[error("{table} has no `{key}`")]
    Missing { table: &'static str, key: &'static str, example: &'static str },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType { key: &'static str, expected: &'static str, found: &'static str },
    #[error("`{first}` and `{second}` are both given")]
    Both { first: &'static str, second: &'static str },
    #[error("`{text}` is not {}", form.noun())]
    Malformed { text: String, form: Form },
    #[error("the prefix `{text}` has bits behind its length")]
    HostBits { text: String, meant: Prefix },
    #[error("`{text}` has port 0")]
    PortZero { text: String },
    #[error("`{key}` cannot be `{text}`")]
    NotAChoice {
        key: &'static str,
        text: String,
        choices: Vec<&'static str>,
        nearest: Option<&'static str>,
    },
    #[error("`{key}` is {found}, but must be between {lowest} and {highest}")]
    OutOfRange { key: &'static str, found: String, lowest: String, highest: String },
    #[error("`{key}` is empty")]
    Empty { key: &'static str, example: &'static str },
    #[error("{found} {what}, but at most {most} are possible")]
    TooMany { what: &'static str, found: usize, most: usize, advice: &'static str },
    #[error(
        "{tables} different tables have {slots} slots together, but at most {most} are possible"
    )]
    TooManySlots { tables: usize, slots: u64, most: u64 },
    #[error("{address} cannot be used here: it is {}", kind.noun())]
    UnusableAddress { address: IpAddr, kind: AddressKind },
    #[error("{what} `{value}` is given more than once")]
    Duplicate { what: &'static str, value: String, first_line: usize },
    #[error("the virtual address {address} is also node `{node}`'s own")]
    VipIsNode { address: IpAddr, node: String },
    #[error("backend {backend} has the virtual address itself")]
    BackendIsVip { backend: SocketAddr },
    #[error("`{key}` names `{name}`, which is no [[node]]")]
    UnknownNode { key: &'static str, name: String, known: Vec<String>, nearest: Option<String> },
    #[error("service `{service}` uses {address}, which is not in `virtual_addresses`")]
    NotVirtual { service: String, address: IpAddr },
    #[error("service `{service}` has {backends} backends, but no virtual address is {backends}")]
    NoVipOfFamily { service: String, backends: Family },
    #[error("backend {backend} is {}, but the service's address {vip} is {}",
        Family::of(backend.ip()), Family::of(*vip))]
    FamilyMismatch { backend: SocketAddr, vip: IpAddr },
    #[error("backend {backend} is {}, but the service's first backend is not", Family::of(backend.ip()))]
    MixedFamilies { backend: SocketAddr },
    #[error("service `{service}` has no backend with a weight above 0")]
    NoWeight { service: String },
    #[error("service `{service}` has no backend that is used before its backups")]
    OnlyBackups { service: String },
    #[error(
        "a service of {backends} backends has no room for a backup: {most} are the most with one"
    )]
    BackupOfMany { backends: usize, most: usize },
    #[error("a service that discovers its backends has no backups, but {backend} is one")]
    BackupWithDiscover { backend: SocketAddr },
    #[error("`minimum_healthy` is {wanted}, and the service has {backends} backends")]
    MinimumOfMore { wanted: u32, backends: usize },
    #[error("port {port} of service `{service}` is one of the NAT ports {first}-{last}")]
    PortInNatRange { service: String, port: u16, first: u16, last: u16 },
    #[error("`table_size` {size} is not a prime")]
    NotPrime { size: u32 },
    #[error("`table_size` {size} is less than the service's {backends} backends")]
    TableTooSmall { size: u32, backends: usize },
    #[error("`delivery = \"direct\"` for {backend}, but no [[node]] has that address")]
    DirectToStranger { backend: SocketAddr },
    #[error("`timeout` {} is longer than `interval` {}",
        duration_text(*timeout), duration_text(*interval))]
    TimeoutAboveInterval { timeout: Duration, interval: Duration },
    #[error("the prefix {prefix} has no {service} address, which the service's clients have")]
    PrefixOfOtherFamily { prefix: Prefix, service: Family },
    #[error("`burst` is {burst}, which cannot carry {per_second} connections per second")]
    BurstTooSmall { burst: u32, per_second: u32, least: u32 },
    #[error("`connection_limit` of a service over UDP, which has no connections")]
    NoConnections,
    #[error("`passive` of a service over UDP, whose datagrams are not seen to fail")]
    NoFailures,
    #[error("`rebalance` of a service over UDP, which has no connections to move")]
    NothingToMove,
    #[error("`{key}` of a service over TCP, whose connections stay where they are anyway")]
    OnlyForUdp { key: &'static str },
    #[error("the backend {backend} has no `server_id`, by which [service.quic] finds it")]
    NoServerId { backend: SocketAddr },
    #[error("`server_id` {id} is not as long as `server_id_length` says: {wanted}")]
    ServerIdLength { id: ServerId, wanted: u8 },
    #[error("`tcp = false`, and neither `http` nor `https`")]
    NoCheck,
    #[error("`active` and [vrrp] both say who holds the virtual addresses")]
    ActiveWithVrrp,
    #[error("`advertisement_interval` is {}, which an advertisement of VRRP version {version} cannot carry",
        duration_text(*found))]
    AdvertisementInterval { version: VrrpVersion, found: Duration },
    #[error("`auth_pass` is given, but VRRP version 3 has no authentication")]
    AuthPassInVersion3,
    #[error("`preempt_delay` is {}, but `preempt` is false", duration_text(*delay))]
    DelayWithoutPreempt { delay: Duration },
    #[error("the virtual address {address} is IPv6, but VRRP version 2 is for IPv4 only")]
    V6InVersion2 { address: IpAddr },
    #[error("`virtual_mac` is true, and so is `unicast`")]
    VirtualMacWithUnicast,
    #[error("[[notify]] has neither `script` nor `url`")]
    NoWay { example: &'static str },
    #[error("`{key}` has no effect with {with}")]
    Pointless { key: &'static str, with: &'static str },
    #[error("`{key}` contains a NUL byte, which no program can be given")]
    NulByte { key: &'static str },
    #[error("`unicast` is true, but node `{node}` has no {family} address")]
    NoAddressOfFamily { node: String, family: Family },
    #[error("a [[vrrp.router]] has {address}, which is not in `virtual_addresses`")]
    RouterOfNoAddress { address: IpAddr },
    #[error("the virtual address {address} belongs to no [[vrrp.router]]")]
    NoRouter { address: IpAddr },
    #[error("a [[track]] without [vrrp]")]
    TrackWithoutVrrp,
    #[error("[[track]] has none of `interface`, `script` and `healthy_backends`")]
    TrackOfNothing,
    #[error("`{key}` is given without `{with}`")]
    OnlyWith { key: &'static str, with: &'static str },
    #[error("`{name}` is the name of something that is tracked always")]
    BuiltInTrack { name: String },
    #[error("`service` names `{name}`, which is no [[service]]")]
    UnknownService { name: String, known: Vec<String>, nearest: Option<String> },
    #[error("`healthy_backends` is {wanted}, but service `{service}` has {backends} in all")]
    NeverSoManyBackends { wanted: u32, service: String, backends: usize },
}

/// What to say about a key that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAdvice {
    /// A key of the same table that looks like it.
    Nearest(&'static str),
    /// Other tables have this very key.
    Elsewhere(Vec<&'static str>),
    /// Nothing is like it: what there is.
    Known(&'static [&'static str]),
}

/// What a text should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Address,
    Endpoint,
    Prefix,
    Duration,
    PortRange,
    Name,
    InterfaceName,
    Path,
    SocketPath,
    Url,
    ServerId,
    HttpPath,
    Statuses,
    Host,
    ServerName,
    DnsName,
    Fingerprint,
}

/// Kinds of address that no machine can be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    Unspecified,
    Loopback,
    Multicast,
    Broadcast,
    LinkLocal,
    Mapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Form {
    fn noun(self) -> &'static str {
        match self {
            Self::Address => "an IP address",
            Self::Endpoint => "an address with a port",
            Self::Prefix => "a prefix",
            Self::Duration => "a duration",
            Self::PortRange => "a range of ports",
            Self::Name => "a usable name",
            Self::InterfaceName => "the name of an interface",
            Self::Path => "an absolute path",
            Self::SocketPath => "a path short enough for a socket",
            Self::Url => "the URL of a webhook",
            Self::ServerId => "the id of a server",
            Self::HttpPath => "a path to ask a server for",
            Self::Statuses => "a status of HTTP",
            Self::Host => "the name of a host",
            Self::ServerName => "a name that a certificate can have",
            Self::DnsName => "a name of DNS",
            Self::Fingerprint => "a SHA-256 fingerprint",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Address => {
                "write an address such as \"192.168.139.150\" or \"fd00::150\", without prefix \
                 length or port; host names are not looked up"
            }
            Self::Endpoint => {
                "write ADDRESS:PORT, such as \"192.168.139.133:6443\" or \"[fd00::133]:6443\"; \
                 host names are not looked up (for backends by name there is `discover`)"
            }
            Self::ServerId => {
                "write two hexadecimal digits for each of 1 to 8 bytes, such as \"0a01\""
            }
            Self::HttpPath => {
                "write what stands behind the host in a URL, such as \"/readyz\" or \"/health?full=1\""
            }
            Self::Statuses => "write one or a range, such as \"200\" or \"200-399\"",
            Self::Host => {
                "write a name or an address, with a port where that is to be said, such as \
                 \"kubernetes.default.svc\""
            }
            Self::ServerName => {
                "write a name or an address without a port, such as \"kubernetes.default.svc\""
            }
            Self::DnsName => {
                "write a name from the root, such as \"api.example.internal\"; no search list is used"
            }
            Self::Fingerprint => {
                "write 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` shows them"
            }
            Self::Prefix => {
                "write an address with the number of its leading bits that count, such as \
                 \"192.0.2.0/24\" or \"2001:db8::/32\", or an address alone"
            }
            Self::Duration => {
                "write whole numbers with units (d, h, m, s, ms), such as \"100ms\", \"2s\" or \
                 \"2h4m\""
            }
            Self::PortRange => "write FIRST-LAST, such as \"61000-64999\"",
            Self::Name => {
                "use letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most \
                 63 characters"
            }
            Self::InterfaceName => {
                "write it as `ip link` shows it: at most 15 characters, without `/`, `:` or spaces"
            }
            Self::Path => "write it from the root, such as \"/var/lib/lb\"",
            Self::SocketPath => "the kernel takes 107 bytes at most, such as \"/run/lb/lb.sock\"",
            Self::Url => {
                "write http:// or https://, a host or address, a port if it is another than 80 or \
                 443, and a path, such as \"http://192.0.2.7:8080/hook\"; without user and fragment"
            }
        }
    }
}

impl AddressKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address, which is another machine on every node",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::LinkLocal => "link-local, which means nothing without an interface",
            Self::Mapped => "an IPv4 address in IPv6 form",
        }
    }
}

impl Problem {
    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Syntax(_) => return None,
            Self::UnknownKey { key, table, advice } => advice.remedy(key, table),
            Self::Missing { example, .. }
            | Self::Empty { example, .. }
            | Self::NoWay { example } => {
                format!("write, for example, {example}")
            }
            Self::WrongType { key, expected, found } => return type_remedy(key, expected, found),
            Self::Both { .. } => "keep one of them".to_owned(),
            Self::Malformed { form, .. } => form.remedy().to_owned(),
            Self::HostBits { meant, .. } => format!("write {meant}, or a longer length"),
            Self::PortZero { .. } => "write the port that it listens on".to_owned(),
            Self::NotAChoice { choices, nearest, .. } => match nearest {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None => format!("choose one of {}", quoted(choices)),
            },
            Self::OutOfRange { .. } => return None,
            Self::TooMany { advice, .. } => (*advice).to_owned(),
            Self::TooManySlots { slots, .. } => format!(
                "raise `table_slots` in [limits] to {slots} ({} MiB of memory), give services smaller \
                 `table_size`s, or the same backends with the same weights: those share a table",
                (slots * 16).div_ceil(1 << 20)
            ),
            Self::UnusableAddress { address, kind: AddressKind::Mapped } => {
                format!("write {}", address.to_canonical())
            }
            Self::UnusableAddress { .. } => {
                "write an address that one machine has and others can reach".to_owned()
            }
            Self::Duplicate { first_line, .. } => format!("it is already on line {first_line}"),
            other => return other.remedy_between(),
        })
    }

    /// Remedies for what is wrong between values that are each right.
    fn remedy_between(&self) -> Option<String> {
        Some(match self {
            Self::VipIsNode { .. } => {
                "a virtual address belongs to no machine: choose a free one of the same network"
                    .to_owned()
            }
            Self::BackendIsVip { .. } => {
                "write the server's own address, or packets would go in a circle".to_owned()
            }
            Self::UnknownNode { nearest: Some(nearest), .. } => {
                format!("did you mean \"{nearest}\"?")
            }
            Self::UnknownNode { known, .. } => format!("the nodes are {}", quoted(known)),
            Self::NotVirtual { .. } => "add it to `virtual_addresses`, or correct it".to_owned(),
            Self::NoVipOfFamily { backends, .. } => {
                format!("add an {backends} address to `virtual_addresses`")
            }
            Self::FamilyMismatch { .. } => {
                "addresses are not translated between families: give the service an `address` of \
                 the backends' family, or backends of the address'"
                    .to_owned()
            }
            Self::MixedFamilies { .. } => {
                "make two services, one for each family; they may share the port".to_owned()
            }
            Self::NoWeight { .. } => "give one of them a `weight` of 1 or more".to_owned(),
            Self::OnlyBackups { .. } => "leave `backup` out at one with a weight".to_owned(),
            Self::BackupOfMany { .. } => {
                "leave `backup` out: among so many the others take over for one that fails"
                    .to_owned()
            }
            Self::MinimumOfMore { .. } => {
                "all would always be used, and no check would count: write fewer".to_owned()
            }
            Self::PortInNatRange { .. } => {
                "move `ports` in [nat], or the service: replies from backends could not be told \
                 from clients"
                    .to_owned()
            }
            Self::NotPrime { size } => near_primes(*size),
            Self::TableTooSmall { backends, .. } => {
                let good = u32::try_from(backends.saturating_mul(100)).unwrap_or(65_537);
                format!("a good size is a prime a hundred times as large: {}", prime_from(good))
            }
            Self::DirectToStranger { .. } => {
                "direct delivery needs the agent there: add the machine as a [[node]], or use \
                 \"nat\" or \"auto\""
                    .to_owned()
            }
            Self::TimeoutAboveInterval { .. } => {
                "a check must end before the next begins: shorten `timeout`".to_owned()
            }
            Self::Pointless { .. } | Self::NulByte { .. } => "remove it".to_owned(),
            Self::PrefixOfOtherFamily { .. } => {
                "remove it; a file of `allow_file` or `deny_file` may have both families".to_owned()
            }
            Self::BurstTooSmall { least, .. } => {
                format!("write {least} or more: the programs' clock has steps of up to 10ms")
            }
            Self::NoConnections => {
                "remove it; `rate_limit` limits the datagrams of a source".to_owned()
            }
            Self::BackupWithDiscover { .. } => {
                "remove `backup`: what is discovered and what stands here are one set".to_owned()
            }
            Self::NoFailures => "remove it; `[service.health]` checks by TCP".to_owned(),
            Self::NothingToMove => "remove it; datagrams go by the table at once".to_owned(),
            Self::OnlyForUdp { .. } => "remove it, or write `protocol = \"udp\"`".to_owned(),
            Self::NoServerId { .. } => {
                "write { address = \"ADDRESS:PORT\", server_id = \"0a01\" }, with the id that this \
                 server puts into its connection ids"
                    .to_owned()
            }
            Self::ServerIdLength { wanted, .. } => {
                format!(
                    "write {} hexadecimal digits: all servers' ids are equally long",
                    2 * wanted
                )
            }
            Self::NoCheck => {
                "to check nothing, write `enabled = false`; to ask for a page, https = \"/readyz\""
                    .to_owned()
            }
            other => {
                return other
                    .remedy_of_track()
                    .or_else(|| other.remedy_of_vrrp().map(str::to_owned));
            }
        })
    }

    fn remedy_of_track(&self) -> Option<String> {
        Some(match self {
            Self::TrackWithoutVrrp => {
                "add [vrrp], or remove it: without an election nothing gives the virtual \
                 addresses to another node"
                    .to_owned()
            }
            Self::TrackOfNothing => "give it one of them: that is what it watches".to_owned(),
            Self::OnlyWith { with, .. } => {
                format!("remove it: it says something about `{with}` only")
            }
            Self::BuiltInTrack { .. } => "choose another name".to_owned(),
            Self::UnknownService { nearest: Some(nearest), .. } => {
                format!("did you mean \"{nearest}\"?")
            }
            Self::UnknownService { known, .. } => format!("the services are {}", quoted(known)),
            Self::NeverSoManyBackends { .. } => {
                "it would fail always: write that many or fewer, or name another `service`"
                    .to_owned()
            }
            _ => return None,
        })
    }

    fn remedy_of_vrrp(&self) -> Option<&'static str> {
        Some(match self {
            Self::ActiveWithVrrp => {
                "remove one of the two: with [vrrp], the `priority` of each [[node]] decides"
            }
            Self::AdvertisementInterval { version: VrrpVersion::V3, .. } => {
                "write a multiple of 10ms, from \"10ms\" to \"40s950ms\""
            }
            Self::AdvertisementInterval { version: VrrpVersion::V2, .. } => {
                "write whole seconds, from \"1s\" to \"255s\"; version 3 has shorter intervals"
            }
            Self::AuthPassInVersion3 => {
                "remove it (RFC 9568 dropped passwords), or write `version = 2` if the other \
                 routers have a password too"
            }
            Self::DelayWithoutPreempt { .. } => {
                "write `preempt = true`, or remove it: a node that never preempts has nothing to \
                 delay"
            }
            Self::V6InVersion2 { .. } => {
                "remove `version = 2` from [vrrp], or the address from `virtual_addresses`"
            }
            Self::VirtualMacWithUnicast => {
                "remove one of the two: switches learn from the multicast advertisements where the \
                 virtual MAC is, and a network that needs unicast has no place for it"
            }
            Self::RouterOfNoAddress { .. } => {
                "add it to `virtual_addresses` at the top of the file, or correct it"
            }
            Self::NoRouter { .. } => "add it to the `virtual_addresses` of one of them",
            Self::NoAddressOfFamily { .. } => {
                "add one to its `addresses`: the advertisements for virtual addresses of that \
                 family go to it"
            }
            _ => return None,
        })
    }
}

impl KeyAdvice {
    fn remedy(&self, key: &str, table: &str) -> String {
        match self {
            Self::Nearest(nearest) => format!("did you mean `{nearest}`?"),
            Self::Elsewhere(tables) if tables == &["the top level"] => {
                format!("`{key}` belongs at the top of the file, before the first [table]")
            }
            Self::Elsewhere(tables) => format!("`{key}` belongs in {}", tables.join(" or ")),
            Self::Known(keys) => {
                format!(
                    "{table} knows {}",
                    keys.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
                )
            }
        }
    }
}

fn type_remedy(key: &str, expected: &str, found: &str) -> Option<String> {
    Some(match (expected, found) {
        ("a table", _) if key == "vrrp" => {
            "write [vrrp], and `router_id` below it; to switch it off, leave it out".to_owned()
        }
        (expected, "a table") if expected.contains("[[") => "write two brackets".to_owned(),
        ("a number" | "true or false", "a string") => "remove the quotation marks".to_owned(),
        ("a list in [brackets]", "a string") => format!("write {key} = [\"..\"]"),
        ("a table", "true or false") => format!("write {key} = {{ enabled = .. }}"),
        _ => return None,
    })
}

fn near_primes(size: u32) -> String {
    let above = prime_from(size);
    match (2..size).rev().find(|n| is_prime(*n)) {
        Some(below) => format!("the primes next to it are {below} and {above}"),
        None => format!("the smallest prime is {above}"),
    }
}

fn quoted<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|word| format!("\"{}\"", word.as_ref())).collect::<Vec<_>>().join(", ")
}
