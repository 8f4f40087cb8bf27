//! From lines of the log to events.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Journal;
use super::journal::EVENT_BYTES_MAX;
use crate::control::api::{Event, Severity};

/// The field that names an event's kind.
const KIND: &str = "event";

/// Keeps what the agent's own code logs as information or worse, whatever of it is written to the log.
#[derive(Debug)]
pub struct Recorder(pub Arc<Journal>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = line.metadata();
        if !metadata.target().starts_with("lb_agent") {
            return;
        }
        let severity = match *metadata.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Information,
            _ => return,
        };
        let mut read = Read { left: EVENT_BYTES_MAX, ..Read::default() };
        line.record(&mut read);
        // A clock before 1970 tells no time.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let Read { kind, sentence, fields, .. } = read;
        self.0.keep(Event { sequence: 0, at, severity, kind, sentence, fields });
    }
}

/// What a line says.
#[derive(Debug, Default)]
struct Read {
    kind: Option<String>,
    sentence: String,
    fields: Map<String, Value>,
    /// So much text is taken still.
    left: usize,
}

impl Read {
    fn text(&mut self, field: &Field, text: &str) {
        let taken = text.len().min(self.left);
        let taken = (0..=taken).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.left -= taken;
        let mut text = text[..taken].to_owned() + if taken < text.len() { "..." } else { "" };
        match field.name() {
            "message" => self.sentence = text,
            KIND => self.kind = Some(text),
            name => {
                text.shrink_to_fit();
                self.fields.insert(name.to_owned(), Value::from(text));
            }
        }
    }
}

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A value that cannot be written is one that nobody misses.
        let _ = write!(text, "{value:?}");
        self.text(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().to_owned(), Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What becomes of lines of the log.
    fn kept(log: impl FnOnce()) -> Vec<Event> {
        let journal = Arc::new(Journal::new("a".to_owned()));
        let subscriber = tracing_subscriber::registry().with(Recorder(Arc::clone(&journal)));
        tracing::subscriber::with_default(subscriber, log);
        journal.handed_over().1
    }

    #[test]
    fn a_line_of_the_log_is_an_event_with_its_fields() {
        let backend = "192.0.2.7:6443".parse::<std::net::SocketAddr>().unwrap();
        let events = kept(|| {
            warn!(event = "backend-down", %backend, reason = "refused", told = 3u64, "{} down", "it is");
        });
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.severity, event.sentence.as_str()), (Severity::Warning, "it is down"));
        assert_eq!(event.kind.as_deref(), Some("backend-down"));
        let fields = serde_json::json!({
            "backend": "192.0.2.7:6443", "reason": "refused", "told": 3
        });
        assert_eq!(Value::Object(event.fields.clone()), fields);
    }

    #[test]
    fn what_is_for_debugging_or_of_others_is_no_event() {
        let events = kept(|| {
            debug!("nothing");
            info!(target: "hyper::proto", "nothing either");
            info!("something");
        });
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].sentence.as_str(), &events[0].kind), ("something", &None));
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_says_so() {
        let long = "ä".repeat(EVENT_BYTES_MAX);
        let events = kept(|| info!(path = long, "x{long}"));
        let length = |text: &str| text.trim_end_matches("...").len();
        let sentence = &events[0].sentence;
        let path = events[0].fields["path"].as_str().unwrap();
        assert!(sentence.ends_with("..."), "{sentence}");
        assert!(length(sentence) + length(path) <= EVENT_BYTES_MAX);
    }
}
