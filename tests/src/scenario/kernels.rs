//! `kernels`: the same binaries on this machine's kernel and on every kernel that its package
//! registries offer, newest of each series, in virtual machines side by side.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::stage::Stage;
use crate::guest::kernel::{self, Offer};
use crate::guest::machine::Machine;
use crate::guest::report::{Check, Report};
use crate::guest::{check, image};
use crate::lab::{Host, Lab};
use crate::verifier;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let started = Instant::now();
    let binaries = stage.tool().parent().context("this program lies nowhere")?.to_owned();
    let cache = binaries.parent().context("this program lies nowhere")?.join("kernels");
    let lab = Lab::new(stage.tool())?;
    let offers = offers(stage)?;
    let mut guests = Vec::new();
    for offer in &offers {
        stage.step(&format!("fetching and packing {}", offer.package));
        guests.push(Guest::start(&lab, offer, &cache)?);
    }
    let mut figures = Map::new();
    stage.step("the running kernel");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packets");
    let checks = check::everywhere(&binaries, &fixtures);
    let own = Report { release: verifier::release()?, booted_s: 0.0, checks };
    judge(stage, "here", &own, &mut figures);
    for guest in &guests {
        stage.step(&format!("a guest with {}", guest.package));
        match guest.machine.report() {
            Ok(report) => judge(stage, &guest.series, &report, &mut figures),
            Err(error) => {
                stage.claim(&format!("{} reports", guest.package), false, format!("{error:#}"));
            }
        }
    }
    stage.figure("kernels", figures);
    stage.figure("seconds", started.elapsed().as_secs_f64().round());
    Ok(())
}

/// What the registries offer to this machine, if they do and it can run that.
fn offers(stage: &Stage) -> Result<Vec<Offer>> {
    if !cfg!(target_arch = "x86_64") {
        stage.say("guests are made for x86_64: only the running kernel is tried");
        return Ok(Vec::new());
    }
    let offers = kernel::offered()?;
    if offers.is_empty() {
        stage.say("this system's registries offer no cloud kernels: only the running one is tried");
    }
    Ok(offers)
}

struct Guest {
    // Before the host: it goes first.
    machine: Machine,
    package: String,
    series: String,
    _host: Host,
}

impl Guest {
    fn start(lab: &Lab, offer: &Offer, cache: &Path) -> Result<Self> {
        let unpacked = kernel::unpack(offer, cache)?;
        let host = lab.host(&format!("guest-{}", offer.series.replace('.', "-"))).start()?;
        // Not in the run's directory, which is in memory.
        let file = cache.join(format!("{}.cpio", offer.series));
        image::write(&file, lab.name(), &unpacked)?;
        let machine = Machine::start(&host, &unpacked, &file)?;
        let (package, series) = (offer.package.clone(), offer.series.clone());
        Ok(Self { machine, package, series, _host: host })
    }
}

fn judge(stage: &mut Stage, name: &str, report: &Report, figures: &mut Map<String, Value>) {
    for check in &report.checks {
        let text = format!("{name} ({}): {}", report.release, check.name);
        stage.claim(&text, check.ok, check.seen());
    }
    let seconds: Map<String, Value> = report.checks.iter().map(of_seconds).collect();
    let mut figure = json!({
        "release": report.release,
        "booted_s": report.booted_s,
        "seconds": seconds,
    });
    if let Some(verifier) = report.verifier() {
        let counts = verifier
            .programs
            .iter()
            .map(|(name, program)| (name.clone(), Value::from(program.instructions)));
        figure["verified_instructions"] = counts.collect::<Map<_, _>>().into();
    }
    figures.insert(name.to_owned(), figure);
}

fn of_seconds(check: &Check) -> (String, Value) {
    (check.name.clone(), Value::from((check.seconds * 10.0).round() / 10.0))
}
