//! `[[track]]`: its keys, defaults and ranges.

use std::time::Duration;

use super::super::document::{Item, Placed, Section};
use super::super::error::Faults;
use super::super::problem::Problem;
use super::super::track::{BUILT_IN, Script, Watched};
use super::super::{schema, value};
use super::HOUR;

const SCRIPT_EXAMPLE: &str = "script = [\"/usr/local/bin/check\", \"an argument\"]";

/// A script that is run more often than this is a load of its own.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// A table whose values are each right.
pub(in crate::config) struct DraftTrack {
    pub(in crate::config) name: Placed<String>,
    pub(in crate::config) watched: Watched,
    /// The number of `healthy_backends`, and the service's name.
    pub(in crate::config) backends: Option<Placed<u32>>,
    pub(in crate::config) service: Option<Placed<String>>,
    pub(in crate::config) weight: Option<i16>,
    pub(in crate::config) rise: u32,
    pub(in crate::config) fall: u32,
}

pub(super) fn tracks(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<DraftTrack> {
    const EXAMPLE: &str = "[[track]] with name = \"uplink\" and interface = \"ens34\"";
    if root.has("track") && !root.has("vrrp") {
        faults.add(&root.span_of("track"), Problem::TrackWithoutVrrp);
    }
    let items = root.elements("track", "a list of tables, each headed [[track]]", EXAMPLE, faults);
    items.filter_map(|item| track(&item.section(&schema::TRACK, faults)?, faults)).collect()
}

fn track(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<DraftTrack> {
    let name = section.required("name", "name = \"check-nginx\"", faults, |item| {
        let name = item.parsed(value::name)?;
        if BUILT_IN.contains(&name.as_str()) {
            return Err(Problem::BuiltInTrack { name });
        }
        Ok(name)
    });
    let kind = kind(section, faults);
    keys_of_others(section, kind, faults);
    let interface =
        section.optional("interface", faults, |item| item.parsed(value::interface_name));
    let script = script(section, faults);
    let backends = section.optional("healthy_backends", faults, |item| item.number(1..=65_535));
    let service =
        section.optional("service", faults, |item| item.not_empty("service = \"kube-apiserver\""));
    let watched = match kind? {
        "interface" => Watched::Interface(interface?.value),
        "script" => Watched::Script(script?),
        _ => Watched::HealthyBackends {
            at_least: backends.as_ref()?.value,
            service: service.as_ref().map(|placed| placed.value.clone()),
        },
    };
    // A script asks somebody else, who may be slow for once. What the agent knows by itself is
    // true at once; that it has recovered is believed when it lasts.
    let (rise, fall) = if matches!(watched, Watched::Script(_)) { (2, 2) } else { (3, 1) };
    Some(DraftTrack {
        name: name?,
        watched,
        backends,
        service,
        weight: section
            .optional("weight", faults, |item| item.number(-254..=-1))
            .map(|placed| placed.value),
        rise: section.or("rise", rise, faults, |item| item.number(1..=100)),
        fall: section.or("fall", fall, faults, |item| item.number(1..=100)),
    })
}

/// The one key that says what is watched.
fn kind(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<&'static str> {
    let kinds = ["interface", "script", "healthy_backends"];
    let given: Vec<&'static str> = kinds.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        [] => {
            faults.add(&section.span, Problem::TrackOfNothing);
            None
        }
        [one] => Some(one),
        [first, second, ..] => {
            faults.add(&section.span_of(second), Problem::Both { first, second });
            None
        }
    }
}

/// Keys that mean nothing for what is watched.
fn keys_of_others(section: &Section<'_>, kind: Option<&str>, faults: &mut Faults<'_>) {
    let Some(kind) = kind else { return };
    for (key, with) in [
        ("interval", "script"),
        ("timeout", "script"),
        ("user", "script"),
        ("service", "healthy_backends"),
    ] {
        if section.has(key) && kind != with {
            faults.add(&section.span_of(key), Problem::OnlyWith { key, with });
        }
    }
}

fn script(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<Script> {
    let before = faults.count();
    let words = section
        .list("script", SCRIPT_EXAMPLE, faults, |item| Ok(item.text("a string")?.to_owned()));
    let default = Duration::from_secs(2);
    let interval =
        section.or("interval", default, faults, |item| item.duration(INTERVAL_MIN..=HOUR));
    let timeout = section
        .or("timeout", interval, faults, |item| item.duration(Duration::from_millis(10)..=HOUR));
    if timeout > interval && faults.count() == before {
        let problem = Problem::TimeoutAboveInterval { timeout, interval };
        faults.add(&section.span_of("timeout"), problem);
    }
    let user = section.or("user", "nobody".to_owned(), faults, |item: Item<'_>| {
        item.not_empty("user = \"nobody\"")
    });
    let (first, arguments) = words.split_first()?;
    match value::path(&first.value) {
        Ok(path) => Some(Script {
            path,
            arguments: arguments.iter().map(|word| word.value.clone()).collect(),
            interval,
            timeout,
            user,
        }),
        Err(problem) => {
            faults.add(&first.span, problem);
            None
        }
    }
}
