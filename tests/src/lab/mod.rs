//! The lab: several machines on one, as network namespaces on a bridge, with real processes in
//! them. It knows nothing of the load balancer but where its agent is put ([`agent`]).
//!
//! Architecture invariant: nothing is changed on the host's own network; every object carries the
//! run's unique name, so that runs are parallel-safe and a crashed one can be swept up.

pub mod agent;
pub mod capture;
pub mod certificate;
mod cgroup;
mod fault;
pub mod flood;
pub mod forge;
mod host;
mod namespace;
pub mod peer;
mod ping;
mod process;
mod queues;
mod run;
pub mod tool;
mod xdp_pass;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

pub use fault::Fault;
pub use host::{ETHERNET_MTU, Host, HostBuilder, Mac, Offloads, format_mac};
pub use namespace::Namespace;
pub use process::{Process, processor_time};
pub use run::{abandon, sweep};
pub use xdp_pass::Pass;

use run::Run;

/// Owned: dismantled when it and its last host are dropped.
#[derive(Clone, Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Before `run`: dropped first, and quietly, instead of by the sweep of the name.
    switch: Namespace,
    segments: Mutex<BTreeSet<String>>,
    ports: AtomicU32,
    /// The `lb-lab` binary, which the lab's backends and clients are subcommands of.
    tool: PathBuf,
    run: Run,
}

impl Lab {
    /// An empty lab. `tool` is the path of the `lb-lab` binary.
    ///
    /// # Errors
    /// Where not root, or where the kernel or a tool is missing; one sentence says which.
    pub fn new(tool: &Path) -> Result<Self> {
        let run = Run::begin()?;
        cgroup::mount_point()?;
        let _making = run::making();
        let switch = Namespace::create(format!("{}-switch", run.name()))?;
        // A switch port is not a host: no address of its own, no router solicitations.
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let nf_call = "net.bridge.bridge-nf-call-iptables";
        if switch.has_sysctl(nf_call) {
            switch.sysctl(nf_call, "0")?;
            switch.sysctl("net.bridge.bridge-nf-call-ip6tables", "0")?;
        }
        let inner = Inner {
            switch,
            segments: Mutex::default(),
            ports: AtomicU32::new(0),
            tool: tool.to_owned(),
            run,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A new host of this name.
    pub fn host(&self, name: &str) -> HostBuilder {
        HostBuilder::new(Arc::clone(&self.inner), name)
    }

    /// The switch takes the frames of all cards that are plugged in now on threads of its own, and not in
    /// their senders' time: for figures of what a sender costs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn switch_on_threads(&self) -> Result<()> {
        let ports = 0..self.inner.ports.load(Ordering::Relaxed);
        let ports: Vec<String> = ports.map(|number| format!("port{number}")).collect();
        queues::poll_on_threads(&self.inner.switch, &ports)
    }

    /// The run's name: the prefix of its namespaces and cgroups.
    pub fn name(&self) -> &str {
        self.inner.run.name()
    }

    /// The run's directory.
    pub fn directory(&self) -> &Path {
        self.inner.run.directory()
    }

    /// The lab's own tool, to be started with a subcommand.
    pub fn tool(&self) -> Command {
        Command::new(&self.inner.tool)
    }
}

impl Inner {
    /// Makes the bridge of a segment, once.
    fn segment(&self, name: &str) -> Result<()> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.contains(name) {
            return Ok(());
        }
        self.switch.ip(&format!(
            "link add {name} type bridge forward_delay 0 mcast_snooping 0\nlink set {name} up"
        ))?;
        segments.insert(name.to_owned());
        Ok(())
    }

    fn next_port(&self) -> String {
        format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed))
    }
}
