//! Network cards as a server's: a receive and a transmit queue for each CPU, and each CPU sends on its own.
//!
//! A veth as `ip` makes it has one queue, whose frames all wait for the CPU that first polled it. What another
//! CPU sends in a flood then overflows it, whatever the receiver could do.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::namespace::Namespace;
use super::tool;

/// The CPUs that this process may run on, the first queue's first.
///
/// # Errors
/// Where the kernel does not tell.
pub(super) fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("which CPUs there are")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// What `ip link add` is told of a card's queues.
pub(super) fn options(cpus: &[usize]) -> String {
    let count = cpus.len();
    format!("numtxqueues {count} numrxqueues {count}")
}

/// Lets each CPU send on its own queue of a card that has one for each (XPS, see the kernel's
/// Documentation/networking/scaling.rst).
///
/// # Errors
/// Where the card has fewer.
pub(super) fn share_out(namespace: &Namespace, interface: &str, cpus: &[usize]) -> Result<()> {
    if cpus.len() < 2 {
        return Ok(());
    }
    let line = |(queue, cpu)| {
        let mask = mask(cpu);
        format!("echo {mask} > /sys/class/net/{interface}/queues/tx-{queue}/xps_cpus")
    };
    in_sysfs(namespace, cpus.iter().copied().enumerate().map(line))
}

/// Takes what arrives at the interfaces on kernel threads from now on, and not in the time of whoever sends
/// it ("threaded NAPI", the kernel's Documentation/networking/napi.rst).
///
/// # Errors
/// Where an interface does not poll, as a veth whose other end has neither a program nor GRO.
pub(super) fn poll_on_threads(namespace: &Namespace, interfaces: &[String]) -> Result<()> {
    let line = |name: &String| format!("echo 1 > /sys/class/net/{name}/threaded");
    in_sysfs(namespace, interfaces.iter().map(line))
}

/// Runs lines of a shell with the namespace's own /sys, which `ip netns exec` mounts.
fn in_sysfs(namespace: &Namespace, lines: impl Iterator<Item = String>) -> Result<()> {
    let lines: Vec<String> = lines.collect();
    let arguments = ["netns", "exec", namespace.name(), "sh", "-ec", &lines.join("\n")];
    tool::run("ip", &arguments).map(drop)
}

/// One CPU as sysfs writes a set of them: hexadecimal words of 32 bits, the highest first.
fn mask(cpu: usize) -> String {
    format!("{:x}{}", 1u32 << (cpu % 32), ",00000000".repeat(cpu / 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_one_bit_of_its_word() {
        assert_eq!(
            [0, 1, 31, 32, 70].map(mask),
            ["1", "2", "80000000", "1,00000000", "40,00000000,00000000"]
        );
    }

    #[test]
    fn there_is_a_cpu_that_runs_this() {
        let cpus = cpus().expect("the kernel tells");
        assert!(!cpus.is_empty() && cpus.is_sorted());
    }
}
