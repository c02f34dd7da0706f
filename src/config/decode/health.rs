//! The keys of `backend.health`.

use std::time::Duration;

use crate::backend::pool::{CheckSettings, Health};
use crate::config::table::Table;
use crate::config::value::{Expected, Value};

/// The bounds for all backends, and the checks, if there are any.
pub(super) fn health(mut table: Table<'_>, is_built_in: bool) -> (Health, Option<CheckSettings>) {
    let default = Health::default();
    let place = table.place("interval");
    let interval = table
        .read("interval", |value| value.or_off(interval))
        .flatten();
    let fall = table
        .read("fall", Value::count)
        .map_or(default.fall, |count| count as u32);
    let rise = table
        .read("rise", Value::count)
        .map_or(default.rise, |count| count as u32);
    let bytes = ["send", "expect"].map(|key| {
        let place = table.place(key);
        let bytes = table.read(key, bytes).unwrap_or_default();
        if let (Some(place), None, false) = (place, interval, bytes.is_empty()) {
            let message = format!(
                "`backend.health.{key}`: nothing is checked without `interval`; add \
                 `interval = \"2s\"`"
            );
            table.problem_at(place, message);
        }
        bytes
    });
    if let (Some(place), Some(_), true) = (place, interval, is_built_in) {
        let message = "`backend.health.interval`: hello and echo have no address to check";
        table.problem_at(place, message.into());
    }
    table.finish();
    let check = interval.map(|interval| {
        let [send, expect] = bytes;
        CheckSettings {
            interval,
            send,
            expect,
        }
    });
    (Health { fall, rise }, check)
}

fn interval(value: &Value<'_>) -> Result<Duration, Expected> {
    match value.duration()? {
        interval if interval < SHORTEST => {
            Err(format!("expected a duration of at least {SHORTEST:?}"))
        }
        interval => Ok(interval),
    }
}

fn bytes(value: &Value<'_>) -> Result<Vec<u8>, Expected> {
    match value.string()? {
        text if text.len() > LONGEST => Err(format!(
            "expected at most {LONGEST} bytes, found {}",
            text.len()
        )),
        text => Ok(text.into()),
    }
}

/// A check is a connection: with less, they would be a load.
const SHORTEST: Duration = Duration::from_millis(100);

/// A greeting or a request, and not a document.
const LONGEST: usize = 4096;
