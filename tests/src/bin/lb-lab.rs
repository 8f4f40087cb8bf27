//! `lb-lab`: runs scenarios and the demo in simulated machines, and is the servers and clients in
//! them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use lb_tests::packet::fixture;
use lb_tests::scenario::stage::{Audience, Setting};
use lb_tests::scenario::{self, demo};
use lb_tests::verifier::Report;
use lb_tests::{backend, bench, client, differential, guest, lab, packet, simulation};
use tokio::signal::unix::{SignalKind, signal};

/// Scenarios of the load balancer in simulated machines (network namespaces). Needs root.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the scenarios' names and what each shows
    List {
        /// Only those that mostly wait, and may do so beside one another
        #[arg(long)]
        patient: bool,
    },
    /// Run scenarios
    Run {
        /// Their names, as `list` prints them; `all` for every one
        #[arg(required = true)]
        names: Vec<String>,
        /// Between VRRP's advertisements, such as 10ms or 1s (failover-* only)
        #[arg(long, value_parser = interval)]
        interval: Option<Duration>,
        /// So many times the flows, changes, reloads, restarts, backends or connections (scale,
        /// reload-under-load, restart-under-load, thousand-backends and nat-failover only)
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
        times: Option<u32>,
        #[command(flatten)]
        face: Face,
    },
    /// Show three masters behind one VIP, and the Active node that dies under load
    Demo {
        #[command(flatten)]
        face: Face,
    },
    /// Measure, beside a floor or a peer in the same run
    Bench {
        /// What to measure: `packet`, `failover` or `idle`
        name: String,
        /// Only with this between VRRP's advertisements (failover only)
        #[arg(long, value_parser = interval)]
        interval: Option<Duration>,
        #[command(flatten)]
        face: Face,
    },
    /// Run VRRP routers in virtual time under faults, and check what must always hold
    Simulate(simulation::command::Arguments),
    /// Say what the kernel's verifier goes through for each program; fail where one nears a limit
    Verifier {
        /// Print the report as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run sequences of frames and changes through the programs, and hold them against the model
    Model(differential::command::Arguments),
    /// Tell the kernel's programs of frames that nobody sends on purpose, and judge what they do
    Fuzz(packet::made_up::command::Arguments),
    /// Make the three masters of the demo and keep them until Ctrl-C, to look around in
    Up {
        #[command(flatten)]
        face: Face,
    },
    /// Remove what a crashed run left behind
    Clean,
    /// Run a directory's packet fixtures on this kernel (`kernels` starts this)
    #[command(hide = true)]
    Fixtures {
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Be a guest's first process (`kernels` starts this in virtual machines)
    #[command(hide = true)]
    Guest,
    /// Be a server (the lab starts these)
    #[command(hide = true)]
    Backend(backend::Arguments),
    /// Be a Kubernetes API server that knows EndpointSlices (the lab starts these)
    #[command(hide = true)]
    ApiServer(backend::api_server::Arguments),
    /// Be the server of a webhook (the lab starts these)
    #[command(hide = true)]
    Receiver(backend::receiver::Arguments),
    /// Be a client that makes load (the lab starts these)
    #[command(hide = true)]
    Client(client::Arguments),
}

#[derive(Clone, Debug, Args)]
struct Face {
    /// Print the result as one JSON object, the last line of standard output
    #[arg(long)]
    json: bool,
    /// Print each step
    #[arg(long, short)]
    verbose: bool,
    /// Leave logs, last words and captures of every wire in this directory
    #[arg(long)]
    evidence: Option<PathBuf>,
}

impl Face {
    fn setting(self) -> Result<Setting> {
        Ok(Setting {
            tool: std::env::current_exe().context("cannot find this program")?,
            audience: Audience::of(self.json),
            verbose: self.verbose,
            evidence: self.evidence,
            interval: None,
            times: 1,
        })
    }
}

#[expect(clippy::print_stderr, reason = "the program's own face")]
fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lb-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the program's own face")]
fn run(arguments: Arguments) -> Result<bool> {
    match arguments.verb {
        Verb::List { patient } => {
            let is_asked = |name| !patient || scenario::PATIENT.contains(&name);
            for scenario in scenario::ALL.iter().filter(|it| is_asked(it.name)) {
                println!("{:<16} {}", scenario.name, scenario.about);
            }
        }
        Verb::Run { names, interval, times, face } => {
            return run_scenarios(&names, interval, times, face);
        }
        Verb::Demo { face } => {
            guard(Some(scenario::LIMIT))?;
            return demo::run(&face.setting()?);
        }
        Verb::Bench { name, interval, face } => {
            let bench = bench::find(&name)?;
            if interval.is_some() && name != "failover" {
                bail!("`{name}` has no interval to choose: leave --interval out");
            }
            guard(Some(bench.limit))?;
            return bench.run(&Setting { interval, ..face.setting()? });
        }
        Verb::Simulate(arguments) => return simulation::command::run(&arguments),
        Verb::Verifier { json } => return verify(json),
        Verb::Model(arguments) => return differential::command::run(&arguments),
        Verb::Fuzz(arguments) => return packet::made_up::command::run(&arguments),
        Verb::Up { face } => return up(face),
        Verb::Clean => {
            let swept = lab::sweep()?;
            println!("{} runs cleaned up {}", swept.len(), swept.join(" "));
        }
        Verb::Fixtures { directory, json } => return run_fixtures(&directory, json),
        // Nothing is mounted yet that would tell more.
        Verb::Guest if std::process::id() == 1 => guest::inside::run(),
        Verb::Guest => bail!("this is no guest of `lb-lab run kernels`"),
        Verb::Backend(arguments) => block_on(backend::serve(arguments))?,
        Verb::ApiServer(arguments) => block_on(backend::api_server::serve(arguments))?,
        Verb::Receiver(arguments) => block_on(backend::receiver::serve(arguments))?,
        Verb::Client(arguments) => block_on(client::run(arguments))?,
    }
    Ok(true)
}

fn run_scenarios(
    names: &[String],
    interval: Option<Duration>,
    times: Option<u32>,
    face: Face,
) -> Result<bool> {
    let mut chosen = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => chosen.extend(scenario::ALL),
            name => chosen.push(scenario::find(name)?),
        }
    }
    if let Some(other) = chosen.iter().find(|chosen| interval.is_some() && !chosen.takes_interval())
    {
        bail!("`{}` has no interval to choose: leave --interval out", other.name);
    }
    if let Some(other) = chosen.iter().find(|chosen| times.is_some() && !chosen.takes_times()) {
        bail!("`{}` has no measure to multiply: leave --times out", other.name);
    }
    let times = times.unwrap_or(1);
    let count = u32::try_from(chosen.len()).context("too many scenarios")?;
    guard(Some(scenario::LIMIT * count * times))?;
    let setting = Setting { interval, times, ..face.setting()? };
    let mut ok = true;
    for scenario in chosen {
        ok &= scenario.run(&setting)?;
    }
    Ok(ok)
}

/// What VRRP version 3 can carry: `10ms` to `40950ms`, in steps of 10 ms.
fn interval(text: &str) -> Result<Duration> {
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => bail!("`{text}` has no unit: write `{text}ms` or `{text}s`"),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    match ms {
        Some(ms @ 10..=40_950) if ms % 10 == 0 => Ok(Duration::from_millis(ms)),
        _ => bail!("`{text}` is not 10ms to 40950ms in steps of 10 ms"),
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own face")]
fn verify(json: bool) -> Result<bool> {
    let report = Report::of_this_kernel()?;
    let warnings = report.warnings();
    if json {
        println!("{}", serde_json::json!({ "ok": warnings.is_empty(), "report": report }));
    } else {
        print!("on Linux {}:\n{}", report.kernel, report.table());
    }
    for warning in &warnings {
        eprintln!("{warning}");
    }
    Ok(warnings.is_empty())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own face")]
fn run_fixtures(directory: &Path, json: bool) -> Result<bool> {
    let (runs, failures) = fixture::run_all(directory)?;
    for failure in &failures {
        eprintln!("{failure}");
    }
    if json {
        println!("{}", serde_json::json!({ "runs": runs, "failed": failures.len() }));
    } else {
        println!("{runs} runs, {} failed", failures.len());
    }
    Ok(runs > 0 && failures.is_empty())
}

fn up(face: Face) -> Result<bool> {
    guard(None)?;
    demo::keep(&face.setting()?)
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Ends the process, and tidies up, where it is told to or hangs: destructors do not run then.
#[expect(clippy::print_stderr, reason = "the program's own face")]
fn guard(limit: Option<Duration>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        (listen(interrupt)?, listen(terminate)?, listen(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        let why = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => "interrupted".to_owned(),
                _ = terminate.recv() => "terminated".to_owned(),
                _ = hang_up.recv() => "the terminal is gone".to_owned(),
                limit = sleep(limit) => format!("not done within {limit:?}"),
            }
        });
        eprintln!("lb-lab: {why}; tidying up");
        if let Err(error) = lab::abandon() {
            eprintln!("lb-lab: {error:#}; `lb-lab clean` removes the rest");
        }
        std::process::exit(1);
    });
    Ok(())
}

async fn sleep(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_what_version_3_can_carry() {
        assert_eq!(interval("10ms").ok(), Some(Duration::from_millis(10)));
        assert_eq!(interval("1s").ok(), Some(Duration::from_secs(1)));
        for wrong in ["10", "15ms", "0s", "41s", "1m", "-1s", "ms"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
