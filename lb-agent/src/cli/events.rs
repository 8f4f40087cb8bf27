//! `lbctl events`.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::screen::{Screen, Tone};
use crate::config::duration_of;
use crate::control::api::{Event, EventGap, EventLine, EventsRequest, Severity};
use crate::control::client::{Client, ClientError};
use crate::notify::rfc3339;

/// How long an agent that went away is waited for, and how often it is looked for.
const AGENT_BACK: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Show what happened on this node, and why: roles, backends, interfaces, reloads, trouble
///
/// An event is a line of the agent's log at level info or worse; the last 2048 are kept, also over an upgrade of the
/// agent. With -o json each is a line: {"event": {..}}, or {"gap": {..}} where some are missing.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "\
Examples:
  lbctl events --since 10m              of the last ten minutes
  lbctl events --follow --since 0s      what happens from now on
  lbctl events -o json | jq -c 'select(.event.kind == \"backend-down\")'")]
pub struct Arguments {
    /// Go on as things happen, also with the agent that follows an upgrade or a restart
    #[arg(short, long)]
    follow: bool,
    /// Only those of the last time, such as 90s or 2h; or those after an event's number
    #[arg(long, value_name = "TIME|NUMBER")]
    since: Option<Since>,
    /// Only warnings and errors
    #[arg(long)]
    warnings: bool,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Ago(Duration),
    After(u64),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().ok().map(Self::After);
        let since = number.or_else(|| duration_of(text).map(Self::Ago));
        since
            .ok_or_else(|| "write a number with its unit, such as 90s, or an event's number".into())
    }
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut request = EventsRequest { follow: arguments.follow, ..EventsRequest::default() };
    let mut newer = f64::MIN;
    match arguments.since {
        Some(Since::After(number)) => request.since = Some(number),
        Some(Since::Ago(ago)) => newer = screen.seconds_since(ago.as_secs_f64()),
        None => {}
    }
    let wanted = |event: &Event| {
        event.at >= newer && (!arguments.warnings || event.severity > Severity::Information)
    };
    let mut lines = client.events(&request).await?;
    loop {
        let broken = match lines.next().await {
            Ok(Some(line)) => {
                match &line {
                    EventLine::Begin(begin) => request.run = Some(begin.run.clone()),
                    EventLine::Event(event) => {
                        request.since = Some(event.sequence);
                        if wanted(event) {
                            show(&line, screen)?;
                        }
                    }
                    EventLine::Gap(_) => show(&line, screen)?,
                }
                continue;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match broken {
            None if !arguments.follow => return Ok(()),
            // It has ended, and another one may come: that goes on with the numbers, or says that it does not.
            None | Some(ClientError::Http { .. }) if arguments.follow => {
                // Also where nothing had happened yet.
                request.since.get_or_insert(0);
                lines = again(client, &request).await?;
            }
            None => return Ok(()),
            Some(error) => return Err(error.into()),
        }
    }
}

/// Asks the agent that comes after one that went away.
async fn again(
    client: &Client,
    request: &EventsRequest,
) -> Result<crate::control::client::Lines<EventLine>, Failure> {
    let begun = Instant::now();
    loop {
        match client.events(request).await {
            Ok(lines) => return Ok(lines),
            Err(error) if begun.elapsed() >= AGENT_BACK => return Err(error.into()),
            // It starts, or somebody starts it.
            Err(_) => sleep(LOOK).await,
        }
    }
}

fn show(line: &EventLine, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if screen.datum(line)? {
        return Ok(());
    }
    match line {
        EventLine::Begin(_) => Ok(()),
        EventLine::Event(event) => {
            let word = screen.painted(tone(event.severity), word(event.severity));
            screen.line(&format!("{}  {word}  {}", time(event.at), said(event)))
        }
        EventLine::Gap(EventGap { reason, .. }) => {
            let word = screen.painted(Tone::Doubtful, "missing");
            screen.line(&format!("{:27}  {word}  {reason}", ""))
        }
    }
}

fn time(at: f64) -> String {
    // What no clock can have told stands as 1970.
    let since = Duration::try_from_secs_f64(at).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(since).map_or_else(String::new, rfc3339)
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Information => "info   ",
        Severity::Warning => "warning",
        Severity::Error => "error  ",
    }
}

const fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Information => Tone::Plain,
        Severity::Warning => Tone::Doubtful,
        Severity::Error => Tone::Bad,
    }
}

/// The sentence, and what it is about.
fn said(event: &Event) -> String {
    let mut text = event.sentence.clone();
    for (name, value) in &event.fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quoted = value.is_empty() || value.contains(' ');
        text.push_str(&if quoted {
            format!(" {name}={value:?}")
        } else {
            format!(" {name}={value}")
        });
    }
    // What comes over the API is not to break a line or drive a terminal.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
