//! Where a service's backends are asked for while the agent runs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::unusable;
use super::{Backend, Config, DeliverySetting, Service};

/// How backends of a service are found besides the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Discover {
    pub source: Source,
    /// Backends at one time, those that leave included: 1 to 65,535.
    pub max_backends: u32,
    /// For how long one that is no longer told of keeps its connections.
    pub linger: Duration,
    /// What stands under `backends`: the service begins with these where nothing was ever learned. At least one.
    pub fixed: Vec<Backend>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Dns(DnsSource),
    Kubernetes(KubernetesSource),
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsSource {
    /// From the root, without the last dot.
    pub name: String,
    /// Where all of them serve.
    pub port: u16,
    /// Whom to ask; those of the system where empty.
    pub servers: Vec<SocketAddr>,
    /// An answer is asked for anew after its TTL, but not before this, and not after `max_ttl`.
    pub min_ttl: Duration,
    pub max_ttl: Duration,
}

/// The endpoints of a Kubernetes service.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesSource {
    pub namespace: String,
    pub service: String,
    /// Which of its ports; where absent it has one over the service's protocol.
    pub port_name: Option<String>,
    /// How to get to the API; as a pod does where absent.
    pub kubeconfig: Option<PathBuf>,
}

impl Source {
    /// What it is called in the API and in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Kubernetes(_) => "kubernetes",
        }
    }
}

/// What is asked for, whoever is asked: what is known of one is not known of another.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(DnsSource { name, port, .. }) => write!(f, "dns {name}:{port}"),
            Self::Kubernetes(KubernetesSource { namespace, service, port_name, .. }) => {
                let port = port_name.as_ref().map_or_else(String::new, |name| format!(":{name}"));
                write!(f, "kubernetes {namespace}/{service}{port}")
            }
        }
    }
}

impl Discover {
    /// A discovered address as a backend: as the file has it, or else an ordinary one.
    pub fn backend(&self, address: SocketAddr) -> Backend {
        let fixed = self.fixed.iter().find(|backend| backend.address == address);
        fixed.cloned().unwrap_or(Backend {
            address,
            weight: 1,
            delivery: DeliverySetting::Auto,
            server_id: None,
            backup: false,
        })
    }
}

impl Config {
    /// Whether what somebody else told of can be a backend of this service, as one in the file could.
    pub fn takes_backend(&self, service: &Service, address: SocketAddr) -> bool {
        let is_ipv4 = service.backends.first().is_none_or(|backend| backend.address.is_ipv4());
        let scope = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        address.is_ipv4() == is_ipv4
            && address.port() != 0
            && !scope
            && unusable(address.ip()).is_none()
            && !self.virtual_addresses.contains(&address.ip())
    }

    /// The same with other backends of one service, which discovers them; at least one.
    #[must_use]
    pub fn with_backends(mut self, service: usize, addresses: &[SocketAddr]) -> Self {
        if let Some(service) = self.services.get_mut(service)
            && let Some(discover) = &service.discover
            && !addresses.is_empty()
        {
            service.backends = addresses.iter().map(|&at| discover.backend(at)).collect();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "interface = \"ens33\"\nvirtual_addresses = [\"192.168.139.150\"]\n\
        [[node]]\nname = \"master1\"\naddress = \"192.168.139.133\"\n\
        [[service]]\nname = \"api\"\nport = 8443\n\
        backends = [{ address = \"192.168.139.133:6443\", weight = 3 }]\n";

    fn config(discover: &str) -> Config {
        let text = format!("{FILE}discover = {discover}\n");
        Config::parse(&text).unwrap_or_else(|e| panic!("{}", e.report("")))
    }

    #[test]
    fn a_discovered_backend_that_the_file_has_is_as_the_file_has_it() {
        let config = config("{ dns = \"api.example.internal.\", port = 6443 }");
        let at = |text: &str| text.parse().expect("an address");
        let known = [at("192.168.139.133:6443"), at("192.168.139.140:6443")];
        let service = config.with_backends(0, &known).services.remove(0);
        let weights: Vec<u16> = service.backends.iter().map(|b| b.weight).collect();
        assert_eq!(weights, [3, 1]);
    }

    #[test]
    fn what_cannot_be_in_the_file_cannot_be_discovered() {
        let config = config("{ dns = \"api.example.internal\", port = 6443 }");
        for (address, taken) in [
            ("192.168.139.140:6443", true),
            ("192.168.139.150:6443", false),
            ("127.0.0.1:6443", false),
            ("224.0.0.1:6443", false),
            ("192.168.139.140:0", false),
            ("[fd00::1]:6443", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(config.takes_backend(&config.services[0], address), taken, "{address}");
        }
    }

    #[test]
    fn the_source_is_named_by_what_is_asked_for() {
        let dns = config("{ dns = \"api.example.internal.\", port = 6443 }");
        let kubernetes = config("{ kubernetes = { service = \"kubernetes\" } }");
        let name = |config: &Config| {
            config.services[0].discover.as_ref().map(|discover| discover.source.to_string())
        };
        assert_eq!(name(&dns).as_deref(), Some("dns api.example.internal:6443"));
        assert_eq!(name(&kubernetes).as_deref(), Some("kubernetes default/kubernetes"));
    }
}
