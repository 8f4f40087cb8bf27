//! `[[notify]]`: who is told, from the document's tables.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::document::{Item, Placed, Section};
use crate::config::error::Faults;
use crate::config::problem::Problem;
use crate::config::{Notify, NotifyEvent, NotifyWay, Url, schema, value};

const WAY_EXAMPLE: &str =
    "script = [\"/usr/local/bin/on-change\"] or url = \"http://192.0.2.7:8080/hook\"";
const SCRIPT_EXAMPLE: &str = "script = [\"/usr/local/bin/on-change\", \"argument\"]";
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A hook whose values are each right, with the places that rules between hooks need.
pub(in crate::config) struct DraftNotify {
    pub(in crate::config) name: Placed<String>,
    pub(in crate::config) hook: Notify,
}

pub(super) fn hooks(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<DraftNotify> {
    const EXAMPLE: &str = "[[notify]] with a name, and a script or a url";
    let expected = "a list of tables, each headed [[notify]]";
    let items = root.elements("notify", expected, EXAMPLE, faults);
    items.filter_map(|item| hook(&item.section(&schema::NOTIFY, faults)?, faults)).collect()
}

fn hook(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<DraftNotify> {
    let read = |item: Item<'_>| item.parsed(value::name);
    let name = section.required("name", "name = \"pager\"", faults, read);
    if section.lacks("script") && section.lacks("url") {
        faults.add(&section.span, Problem::NoWay { example: WAY_EXAMPLE });
    } else if section.has("script") && section.has("url") {
        let problem = Problem::Both { first: "script", second: "url" };
        faults.add(&section.span_of("url"), problem);
    }
    let script = script(section, faults);
    let webhook = webhook(section, faults);
    let events = events(section, faults);
    let least = Duration::from_millis(100);
    let timeout = section.or("timeout", TIMEOUT, faults, |item| item.duration(least..=TIMEOUT_MAX));
    let name = name?;
    let hook = Notify { name: name.value.clone(), way: script.or(webhook)?, events, timeout };
    Some(DraftNotify { name, hook })
}

fn script(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<NotifyWay> {
    let words = section.list("script", SCRIPT_EXAMPLE, faults, |item| {
        let text = item.text("a list of strings, the script's path first")?;
        if text.contains('\0') {
            Err(Problem::NulByte { key: "script" })
        } else {
            Ok(text.to_owned())
        }
    });
    let user = section.optional("user", faults, |item| item.not_empty("user = \"nobody\""));
    if section.has("user") && !section.has("script") && section.has("url") {
        let problem =
            Problem::Pointless { key: "user", with: "`url`: only a script runs as a user" };
        faults.add(&section.span_of("user"), problem);
    }
    let mut words = words.into_iter();
    let first = words.next()?;
    let path = match value::path(&first.value) {
        Ok(path) => path,
        Err(problem) => {
            faults.add(&first.span, problem);
            PathBuf::new()
        }
    };
    let arguments = words.map(|word| word.value).collect();
    Some(NotifyWay::Script { path, arguments, user: user.map(|placed| placed.value) })
}

fn webhook(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<NotifyWay> {
    let url = section.optional("url", faults, |item| item.parsed(value::url));
    let ca_file = section.optional("ca_file", faults, |item| item.parsed(value::path));
    let plain = |url: &Placed<Url>| !url.value.secure;
    let useless = match &url {
        Some(url) if plain(url) => Some("an http:// `url`: only https has certificates"),
        None if !section.has("url") && section.has("script") => {
            Some("`script`: only a webhook has certificates")
        }
        _ => None,
    };
    if let (Some(with), true) = (useless, section.has("ca_file")) {
        faults.add(&section.span_of("ca_file"), Problem::Pointless { key: "ca_file", with });
    }
    let ca_file = ca_file.map(|placed| placed.value);
    url.map(|url| NotifyWay::Webhook { url: url.value, ca_file })
}

/// All where the key is absent.
fn events(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<NotifyEvent> {
    const CHOICES: [(&str, NotifyEvent); 2] =
        [("role", NotifyEvent::Role), ("trouble", NotifyEvent::Trouble)];
    let placed = section
        .list("events", "events = [\"role\", \"trouble\"]", faults, |item| item.choice(&CHOICES));
    if !section.has("events") {
        return CHOICES.map(|(_, event)| event).to_vec();
    }
    let mut events = Vec::new();
    for event in placed {
        if events.contains(&event.value) {
            let first_line = faults.line_of(&section.span_of("events"));
            let value = event.value.to_string();
            faults.add(&event.span, Problem::Duplicate { what: "event", value, first_line });
        } else {
            events.push(event.value);
        }
    }
    events
}
