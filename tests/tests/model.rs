//! Ten thousand sequences of frames and changes, through the programs and the model. Needs root; says
//! so where it is not. `LB_SEED` chooses others than those of every run; `lb-lab model` runs more.

use std::io::{Write as _, stdout};

use anyhow::{Result, ensure};
use lb_tests::differential::{SEED, runner};

const SEQUENCES: u64 = 10_000;

/// Unoptimised, as many as take no longer.
const FEWER: u64 = 2_000;

/// What the sequences come upon; with less they would prove little.
const VERDICTS: [&str; 48] = [
    "announce_no_lease",
    "arp_corrected",
    "arp_held",
    "arp_no_lease",
    "assign_failed",
    "connection_limited",
    "denied",
    "direct_established",
    "direct_last",
    "direct_new",
    "direct_next",
    "fragment",
    "fragment_forward",
    "fragment_local",
    "icmp_direct",
    "icmp_expired",
    "icmp_local",
    "icmp_other",
    "icmp_too_big",
    "inconsistent",
    "local_established",
    "local_new",
    "local_udp",
    "nat_exhausted",
    "nat_forward",
    "nat_full",
    "nat_new",
    "nat_return",
    "nat_unknown",
    "nd_held",
    "nd_no_lease",
    "no_backend",
    "no_service",
    "no_service_dropped",
    "nobody",
    "not_allowed",
    "not_ip",
    "not_ours",
    "other_host",
    "other_protocol",
    "other_vlan",
    "rate_limited",
    "too_big",
    "trial",
    "truncated",
    "ttl_exceeded",
    "udp_delivered",
    "udp_reply",
];

#[test]
fn whatever_arrives_the_programs_do_what_the_model_says() -> Result<()> {
    let seed = std::env::var("LB_SEED").map_or(SEED, |seed| {
        seed.parse().unwrap_or_else(|_| panic!("LB_SEED is {seed:?}, not a whole number"))
    });
    let sequences = if cfg!(debug_assertions) { FEWER } else { SEQUENCES };
    // Also where it hangs or ends the process.
    let _ = writeln!(stdout(), "LB_SEED={seed}");
    let report = runner::run(seed, sequences, |_| {})?;
    let differences = report.differences.join("\n");
    ensure!(
        report.differing == 0,
        "LB_SEED={seed}: {} of {sequences} sequences differ\n{differences}",
        report.differing
    );
    let (runs, seconds) = (report.runs, report.took.as_secs());
    let _ = writeln!(stdout(), "{sequences} sequences, {runs} runs of programs, {seconds} s");
    ensure!(report.runs > 5 * sequences, "{} runs in all", report.runs);
    for name in VERDICTS {
        let given = report.given().any(|(verdict, times)| verdict == name && times > 0);
        ensure!(given, "no sequence came upon {name}");
    }
    Ok(())
}
