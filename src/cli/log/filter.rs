//! Decides which lines of the audit log are printed.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::args::LogArgs;
use super::peer::Peer;

/// The conditions of the command line. An event is printed if it meets all of them.
pub(super) struct Filter {
    /// Texts that a line has if it meets the conditions. Looking for them is much cheaper than to
    /// parse the line.
    needles: Vec<String>,
    since: Option<String>,
    /// Events have the time when they were published, so their order in the file may differ a little.
    /// Before a line of this age, there are only older ones.
    long_before: Option<String>,
    until: Option<String>,
    identity: Option<String>,
    peer: Option<Peer>,
    backend: Option<String>,
    outcomes: Vec<String>,
    id: Option<String>,
    events: Vec<String>,
}

/// What a filter makes of a line.
pub(super) enum Judged {
    Good(Value),
    /// It does not meet the conditions, or is damaged.
    Other,
    /// Nor does any line before it.
    TooOld,
}

impl Filter {
    pub(super) fn new(args: &LogArgs) -> Self {
        let text = |key: &str, value: &str| format!("\"{key}\":{}", Value::from(value));
        let one = |key: &str, values: &[String]| match values {
            [value] => Some(text(key, value)),
            _ => None,
        };
        let needles = [
            args.id.as_ref().map(|id| format!("\"id\":\"{id}")),
            args.backend.as_ref().map(|name| text("backend", name)),
            one("outcome", &args.outcome),
            one("event", &args.event),
        ];
        let written = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
        Self {
            needles: needles.into_iter().flatten().collect(),
            since: args.since.map(written),
            long_before: args
                .since
                .and_then(|since| since.checked_sub(SLACK))
                .map(written),
            until: args.until.map(written),
            identity: args.identity.clone(),
            peer: args.peer.clone(),
            backend: args.backend.clone(),
            outcomes: args.outcome.clone(),
            id: args.id.clone(),
            events: args.event.clone(),
        }
    }

    pub(super) fn judge(&self, line: &[u8]) -> Judged {
        let Ok(text) = str::from_utf8(line) else {
            return Judged::Other;
        };
        let has_needles = self.needles.iter().all(|needle| text.contains(needle));
        let time = text.strip_prefix(TIME).and_then(|rest| rest.get(..LENGTH));
        if let (Some(time), Some(long_before)) = (time, &self.long_before)
            && time < long_before.as_str()
        {
            return Judged::TooOld;
        }
        if !has_needles {
            return Judged::Other;
        }
        match serde_json::from_str(text) {
            Ok(event) if self.matches(&event) => Judged::Good(event),
            _ => Judged::Other,
        }
    }

    fn matches(&self, event: &Value) -> bool {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let among = |list: &[String], key| list.is_empty() || list.iter().any(|it| it == text(key));
        let time = text("time");
        event.is_object()
            && self
                .since
                .as_ref()
                .is_none_or(|since| time >= since.as_str())
            && self
                .until
                .as_ref()
                .is_none_or(|until| time < until.as_str())
            && self
                .backend
                .as_ref()
                .is_none_or(|name| text("backend") == name)
            && self
                .id
                .as_ref()
                .is_none_or(|id| text("id").starts_with(id.as_str()))
            && among(&self.outcomes, "outcome")
            && among(&self.events, "event")
            && self.peer.as_ref().is_none_or(|peer| peer.has(text("peer")))
            && self
                .identity
                .as_ref()
                .is_none_or(|name| is_named(event, name))
    }
}

/// Whether the client has this name, or a revocation is about it.
fn is_named(event: &Value, name: &str) -> bool {
    if event["what"] == name {
        return true;
    }
    let Some((kind, name)) = name.split_once(':') else {
        return false;
    };
    match &event["identity"][kind] {
        Value::Array(names) => names.iter().any(|it| it == name),
        one => *one == name,
    }
}

/// How a line begins, up to its time.
const TIME: &str = "{\"time\":\"";
/// The length of a time, such as 2026-11-20T20:00:00.123Z.
const LENGTH: usize = 24;

/// More than the times of neighbours differ.
const SLACK: Duration = Duration::from_secs(10);
