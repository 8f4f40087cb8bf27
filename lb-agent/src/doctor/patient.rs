//! The machine that is examined: what is known of it at first, and what is then looked at, all at the same time.

use super::*;
use crate::announce::Interface;
use crate::config::Node;
use crate::netlink::{InterfaceAddress, Link};

/// Interfaces that are looked at; the file takes no more.
const INTERFACES_MAX: usize = 64;

pub(super) struct Patient {
    request: Request,
    config: Option<Config>,
    netlink: Netlink,
    network: Network,
    /// What the agent answered, where one runs.
    agent: Option<agent::Answers>,
    process: Option<i32>,
    interfaces: Vec<String>,
    findings: Vec<Finding>,
}

/// What takes its time.
struct Looked {
    listenings: Vec<(String, Result<Listening, String>)>,
    claims: Claims,
    rulesets: look::firewall::Rulesets,
    ways: Vec<path::Way>,
    certificates: (Vec<certificate::Seen>, usize),
    modules: machine::Modules,
}

impl Patient {
    pub(super) async fn meet(request: Request) -> Result<Self, String> {
        let config = match &request.file {
            File::Read(config) => Some(Config::clone(config)),
            File::Absent | File::Unread(_) | File::Refused { .. } => None,
        };
        let netlink = Netlink::connect().map_err(|error| error.to_string())?;
        let network = netlink.snapshot().await.map_err(|error| error.to_string())?;
        let mut findings = Vec::new();
        let agent = match look::agent::ask(&request.socket).await {
            Ok(agent) => agent,
            Err(error) => {
                let why = error.to_string();
                findings.push(Finding::not_looked_at(
                    "agent",
                    "agent",
                    why,
                    Some("sudo lbctl doctor"),
                ));
                None
            }
        };
        let process = agent.as_ref().and_then(|_| look::agent::process(&request.socket));
        let mut patient = Self {
            request,
            config,
            netlink,
            network,
            agent,
            process,
            interfaces: Vec::new(),
            findings,
        };
        patient.interfaces = patient.choose_interfaces();
        Ok(patient)
    }

    /// The one that was named, those of the file and of the agent, or else those that lead somewhere.
    fn choose_interfaces(&self) -> Vec<String> {
        if let Some(name) = &self.request.interface {
            return vec![name.clone()];
        }
        let mut names: Vec<String> =
            self.config.iter().flat_map(|config| config.interfaces.clone()).collect();
        let attached = self.agent.iter().flat_map(|agent| &agent.status.interfaces);
        names.extend(attached.map(|interface| interface.name.clone()));
        if names.is_empty() {
            let ways = self.network.default_ways(true);
            names.extend(
                ways.iter().filter_map(|index| Some(self.network.link(*index)?.name.clone())),
            );
        }
        if names.is_empty() {
            let links =
                self.network.links().filter(|link| link.up && !link.loopback && link.mac.is_some());
            names.extend(links.map(|link| link.name.clone()));
        }
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names.truncate(INTERFACES_MAX);
        names
    }

    fn own(&self) -> Vec<IpAddr> {
        self.network.own_addresses().collect()
    }

    /// Which of the file's nodes this is.
    fn node<'c>(&self, config: &'c Config) -> Result<&'c Node, String> {
        match &self.agent {
            Some(agent) => config.node_named(&agent.status.node).map_err(|error| error.to_string()),
            None => config.this_node(&self.own()).map_err(|error| error.to_string()),
        }
    }

    /// Addresses of the file's other nodes.
    fn others<'c>(&self, config: &'c Config) -> Vec<(&'c str, IpAddr)> {
        let own = self.own();
        let others =
            config.nodes.iter().filter(|node| !node.addresses.iter().any(|a| own.contains(a)));
        others
            .flat_map(|node| node.addresses.iter().map(|address| (node.name.as_str(), *address)))
            .collect()
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.interfaces.iter().filter_map(|name| self.network.link_by_name(name))
    }

    /// Where a virtual address belongs: as the agent places it.
    fn home(&self, address: IpAddr) -> Option<&Link> {
        let has =
            |link: &&Link| self.network.addresses_of(link.index).any(|own| own.covers(address));
        self.links().find(has).or_else(|| self.links().next())
    }

    pub(super) async fn examine(mut self) -> Vec<Finding> {
        let mut findings = std::mem::take(&mut self.findings);
        let looked = self.look().await;
        findings.extend(self.machine(&looked));
        for name in &self.interfaces {
            findings.extend(self.interface(name).await);
        }
        findings.extend(self.firewall(&looked));
        if let Some(config) = &self.config {
            findings.extend(self.of_config(config, &looked));
        }
        let own = self.own();
        for (name, heard) in &looked.listenings {
            findings.extend(advertisement::judge(heard, name, self.config.as_ref(), &own));
        }
        if let Some(answers) = &self.agent {
            let wanted = self.config.as_ref().map(|config| config.interfaces.clone());
            let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64());
            findings.extend(agent::judge(answers, &wanted.unwrap_or_default(), now));
        }
        findings
    }

    /// All that takes its time, at the same time.
    async fn look(&self) -> Looked {
        let lasts = self.request.listen.unwrap_or_else(|| listening_time(self.config.as_ref()));
        let links: Vec<(String, u32)> =
            self.links().map(|link| (link.name.clone(), link.index)).collect();
        let listenings =
            futures::future::join_all(links.into_iter().map(|(name, index)| async move {
                if lasts.is_zero() {
                    return None;
                }
                let interface = name.clone();
                let heard =
                    blocking(move || look::listen::listen(&interface, index, lasts)).await?;
                Some((name, heard))
            }));
        let wanted = self.questions();
        let claims = blocking(move || look::claim::ask(&wanted));
        let echoes = self.echoes();
        let certificates = async {
            match &self.config {
                Some(config) => look::certificate::all(config).await,
                None => (Vec::new(), 0),
            }
        };
        let (listenings, claims, rulesets, ways, certificates, modules) = tokio::join!(
            listenings,
            claims,
            blocking(look::firewall::rulesets),
            echoes,
            certificates,
            blocking(look::machine::modules),
        );
        Looked {
            listenings: listenings.into_iter().flatten().collect(),
            claims: claims.unwrap_or_default(),
            rulesets: rulesets.unwrap_or_default(),
            ways,
            certificates,
            modules: modules.unwrap_or_default(),
        }
    }

    /// Whom to ask for on the link, and where.
    fn questions(&self) -> Vec<(IpAddr, Option<Interface>)> {
        let Some(config) = &self.config else { return Vec::new() };
        let vips = config.virtual_addresses.iter().copied();
        let nodes = self.others(config).into_iter().map(|(_, address)| address);
        let all = vips.chain(nodes).map(|address| {
            let link = self.home(address);
            let interface = link.and_then(|link| {
                Some(Interface { index: link.index, name: link.name.clone(), mac: link.mac? })
            });
            (address, interface)
        });
        all.collect()
    }

    async fn echoes(&self) -> Vec<path::Way> {
        let Some(config) = &self.config else { return Vec::new() };
        let each = self.others(config).into_iter().map(|(node, address)| async move {
            let link = match self.network.resolve(address) {
                Ok(hop) => {
                    self.network.link(hop.ifindex).ok_or_else(|| "its interface is gone".to_owned())
                }
                Err(error) => Err(error.to_string()),
            };
            let (interface, mtu, answered) = match link {
                Ok(link) => {
                    let (name, mtu) = (link.name.clone(), link.mtu);
                    let sizes = blocking(move || look::echo::sizes(address, &name, mtu)).await;
                    (
                        link.name.clone(),
                        mtu,
                        sizes.unwrap_or_else(|| Err("asking failed".to_owned())),
                    )
                }
                Err(why) => (String::new(), 0, Err(why)),
            };
            path::Way { node: node.to_owned(), address, interface, mtu, answered }
        });
        futures::future::join_all(each).await
    }

    fn machine(&self, looked: &Looked) -> Vec<Finding> {
        let process = look::machine::process(self.process);
        let by_https = |config: &Config| {
            config.services.iter().any(|service| {
                matches!(&*service.health.check, Check::Http(check) if check.tls.is_some())
            })
        };
        let certificates = self.config.as_ref().is_some_and(by_https);
        let mut findings = vec![machine::rights(&process)];
        findings.extend(machine::modules(&looked.modules, &process));
        findings.push(machine::clock(look::machine::clock(), certificates));
        if let Some(config) = &self.config {
            findings.push(machine::pins(&look::machine::pins(&config.paths.bpf)));
            let cgroup = config.host.cgroup.as_ref().filter(|_| config.host.enabled);
            findings
                .extend(cgroup.map(|path| machine::cgroup(path, look::machine::is_cgroup2(path))));
        }
        findings.push(keeper::speakers(&look::keeper::speakers()));
        findings
    }

    async fn interface(&self, name: &str) -> Vec<Finding> {
        let link = self.network.link_by_name(name);
        let programs = match link {
            Some(link) => Some(look::interface::programs(&self.netlink, link.index, name).await),
            None => None,
        };
        let is_free = matches!(&programs, Some(Ok(programs)) if programs.is_empty());
        let (config, trial) = (self.config.as_ref(), self.request.try_attach);
        let seen = look::interface::look(name, &self.network, config, trial, is_free);
        let mut findings = interface::judge(&seen);
        // What an agent has found out need not be tried.
        let attached = self.agent.iter().flat_map(|agent| &agent.status.interfaces);
        if attached.into_iter().any(|interface| interface.name == name) {
            findings
                .retain(|finding| finding.name != "xdp_mode" || finding.severity == Severity::Good);
        }
        findings
            .extend(programs.map(|programs| program::judge(name, &programs)).unwrap_or_default());
        if let Some(link) = link {
            findings.push(keeper::networkd(name, &look::keeper::networkd(link.index)));
            let device = look::keeper::network_manager(link.index);
            findings.push(keeper::network_manager(name, device.as_deref()));
        }
        findings
    }

    fn firewall(&self, looked: &Looked) -> Vec<Finding> {
        let packets = self.packets();
        let rulesets = &looked.rulesets;
        let mut findings: Vec<Finding> = Vec::new();
        if packets.is_empty() {
            return findings;
        }
        let subject = "firewall: protocol 112";
        let unread = rulesets.unread.iter().map(|why| {
            Finding::not_looked_at(
                "vrrp_filtered",
                subject,
                why,
                Some("sudo lbctl doctor, with nftables installed"),
            )
        });
        findings.extend(unread);
        let mut looks = Vec::new();
        for packet in packets {
            let legacy = &rulesets.legacy[usize::from(packet.source.is_ipv6())];
            let passages = [
                rulesets.nft.as_ref().map(|ruleset| firewall::nft::passage(ruleset, &packet)),
                legacy.as_ref().map(|saved| firewall::iptables::passage(saved, &packet)),
            ];
            if let Some(passage) = passages.into_iter().flatten().max() {
                looks.push(firewall::Look { packet, passage });
            }
        }
        findings.extend(firewall::judge(&looks));
        findings
    }

    /// Advertisements from and to each other node, or between any two where there is no file.
    fn packets(&self) -> Vec<firewall::Packet> {
        let unicast = match &self.config {
            Some(Config { vrrp: None, .. }) => return Vec::new(),
            Some(Config { vrrp: Some(vrrp), .. }) => vrrp.unicast,
            None => false,
        };
        let others: Vec<IpAddr> =
            self.config.iter().flat_map(|config| self.others(config)).map(|(_, a)| a).collect();
        let mut packets = Vec::new();
        for link in self.links() {
            for own in self.network.addresses_of(link.index).filter(|own| self.speaks_from(own)) {
                let group: IpAddr = match own.address {
                    IpAddr::V4(_) => look::listen::GROUP_V4.into(),
                    IpAddr::V6(_) => look::listen::GROUP_V6.into(),
                };
                let same = others.iter().copied().filter(|other| own.covers(*other));
                let peers: Vec<IpAddr> =
                    if others.is_empty() { vec![own.address] } else { same.collect() };
                for peer in peers {
                    let packet = |source, destination, outgoing| firewall::Packet {
                        interface: link.name.clone(),
                        source,
                        destination,
                        outgoing,
                    };
                    packets.push(packet(peer, if unicast { own.address } else { group }, false));
                    packets.push(packet(own.address, if unicast { peer } else { group }, true));
                }
            }
        }
        packets
    }

    /// Whether VRRP may be spoken from an address: a permanent one of a family that there are virtual addresses of.
    fn speaks_from(&self, own: &InterfaceAddress) -> bool {
        let v4 = own.address.is_ipv4();
        let wanted = match &self.config {
            Some(config) => config.virtual_addresses.iter().any(|vip| vip.is_ipv4() == v4),
            None => v4,
        };
        // One that stands alone is a virtual one.
        let alone = own.prefix_len == if v4 { 32 } else { 128 };
        own.permanent && wanted && !alone
    }

    fn of_config(&self, config: &Config, looked: &Looked) -> Vec<Finding> {
        let mut findings = Vec::new();
        let node = self.node(config);
        findings.push(match &node {
            Ok(node) => Finding::good("node", "node", format!("this machine is {}", node.name)),
            Err(why) => Finding::bad(
                "node",
                "node",
                why,
                "ip -brief address: correct `address` of the [[node]] that this is",
            ),
        });
        findings.extend(election::judge(config));
        if let Ok(node) = node
            && self.agent.is_none()
        {
            for (_, heard) in &looked.listenings {
                if let Ok(heard) = heard {
                    findings.extend(election::start(config, node, heard, &self.own()));
                }
            }
        }
        findings.extend(self.addresses(config, &looked.claims));
        findings.extend(looked.ways.iter().map(path::judge));
        findings.extend(look::script::all(config).iter().map(script::judge));
        let (certificates, left_out) = &looked.certificates;
        findings.extend(certificates.iter().flat_map(certificate::judge));
        if *left_out > 0 {
            let why = format!("{left_out} more backends were not asked");
            findings.push(Finding::not_looked_at(
                "certificate",
                "other certificates",
                why,
                Some("lbctl backends -o wide"),
            ));
        }
        findings
    }

    fn addresses(&self, config: &Config, claims: &Claims) -> Vec<Finding> {
        let own_macs: Vec<Mac> = self.network.links().filter_map(|link| link.mac).collect();
        let mut nodes = BTreeMap::new();
        for (node, address) in self.others(config) {
            if let Some(Ok(macs)) = claims.get(&address) {
                nodes.extend(macs.iter().map(|mac| (*mac, node.to_owned())));
            }
        }
        let mut findings = Vec::new();
        for &vip in &config.virtual_addresses {
            let placed =
                self.network.addresses().iter().filter(|own| own.address == vip).map(|own| {
                    let mac = self.network.link(own.ifindex).and_then(|link| link.mac);
                    address::Placed {
                        interface: self.network.link_name(own.ifindex),
                        prefix_len: own.prefix_len,
                        permanent: own.permanent,
                        virtual_mac: mac.is_some_and(address::is_virtual),
                    }
                });
            let claims =
                claims.get(&vip).cloned().unwrap_or_else(|| Err("asking failed".to_owned()));
            let claims =
                claims.map(|macs| macs.into_iter().filter(|mac| !own_macs.contains(mac)).collect());
            let virtual_macs =
                config.vrrp.iter().flat_map(|vrrp| vrrp.virtual_macs().collect::<Vec<_>>());
            findings.extend(address::judge(&address::Seen {
                address: vip,
                placed: placed.collect(),
                home: self.home(vip).map(|link| link.name.clone()),
                claims,
                nodes: nodes.clone(),
                virtual_macs: virtual_macs.collect(),
            }));
        }
        findings
    }
}
