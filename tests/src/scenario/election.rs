//! A cluster whose nodes elect one another: who is Active, and a machine that dies and comes back.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lb_agent::control::api::Role;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, NIC, vip};
use crate::lab::tool;

/// Between two looks at who is Active.
const POLL: Duration = Duration::from_millis(10);

/// The routes of our agents (docs/operations.md, Purge).
const ROUTES: [&str; 6] = ["route", "flush", "table", "local", "proto", "76"];

impl Cluster {
    /// Makes a node Active in both families: the others are held back until it is. Those of
    /// `candidates` may follow it then.
    ///
    /// # Errors
    /// Where it does not become Active in time.
    pub fn elect(&self, node: usize, candidates: &[usize]) -> Result<()> {
        for index in (0..self.nodes.len()).filter(|index| *index != node) {
            self.nodes[index].agent()?.lbctl(["vrrp", "hold"])?;
        }
        self.await_active(&[node])?;
        for &index in candidates.iter().filter(|index| **index != node) {
            self.nodes[index].agent()?.lbctl(["vrrp", "release"])?;
        }
        Ok(())
    }

    /// Waits until exactly one of these nodes is Active with both VIPs, and returns it.
    ///
    /// # Errors
    /// Where none is in time, or several stay so.
    pub fn await_active(&self, among: &[usize]) -> Result<usize> {
        let deadline = Instant::now() + SETTLE;
        loop {
            if let [one] = self.active(among)?[..] {
                return Ok(one);
            }
            if Instant::now() > deadline {
                bail!("not exactly one of the nodes {among:?} is Active within {SETTLE:?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Those of these nodes that are Active with both VIPs now.
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn active(&self, among: &[usize]) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for &index in among {
            let status = self.nodes[index].agent()?.status()?;
            if status.role == Role::Active && status.virtual_addresses.iter().all(|v| v.held) {
                found.push(index);
            }
        }
        Ok(found)
    }

    /// A whole machine dies: no link, no processes.
    ///
    /// # Errors
    /// Where it cannot be done.
    pub fn crash(&mut self, node: usize) -> Result<()> {
        let Some(dying) = self.nodes.get_mut(node) else { bail!("no node {node}") };
        dying.host.set_cable(NIC, false)?;
        dying.host.kill_all()?;
        dying.agent = None;
        let name = dying.host.name().to_owned();
        self.backends.retain(|(on, _), _| *on != name);
        Ok(())
    }

    /// It boots: nothing is left of what it had in its memory, its servers and its agent start.
    ///
    /// # Errors
    /// Where something does not come up.
    pub fn boot(&mut self, node: usize) -> Result<()> {
        let Some(booting) = self.nodes.get(node) else { bail!("no node {node}") };
        let (host, name) = (&booting.host, booting.host.name().to_owned());
        // As no interface of its own is left after a reboot; without programs these would speak.
        for interface in host.interfaces()?.iter().filter(|name| name.starts_with("lb-v")) {
            host.namespace().ip(&format!("link del {interface}"))?;
        }
        // With the pins go programs, maps and links.
        match fs::remove_dir_all(host.bpf_directory()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("cannot remove what a dead machine had pinned");
            }
            _ => {}
        }
        for family in Family::BOTH {
            let address = vip(family);
            if host.holds(NIC, address)? {
                host.namespace().ip(&format!("addr del {address} dev {NIC}"))?;
            }
        }
        for family in ["-4", "-6"] {
            let here = ["-n", host.namespace().name(), family];
            tool::run("ip", &[&here[..], &ROUTES].concat())?;
        }
        host.set_cable(NIC, true)?;
        if self.shape.backend_names().contains(&name) {
            for mode in self.shape.services.clone() {
                self.start_backend(&name, mode)?;
            }
        }
        self.start_agents()
    }
}
