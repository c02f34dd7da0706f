//! Tunnels, workers and fronts as text for people.

use std::fmt::Write;

use serde_json::Value;

use super::{address_state, items, word};

/// `None` has no tunnels.
pub(super) fn tunnels(it: &Value) -> String {
    match it.is_object() {
        true => {
            let (open, streams) = (number(&it["open"]), number(&it["streams"]));
            format!("{}, {}", count(open, "tunnel"), count(streams, "stream"))
        }
        false => String::new(),
    }
}

/// Those that wait for connections of a backend.
pub(super) fn workers(it: &Value) -> String {
    if !it.is_object() {
        return String::new();
    }
    let mut text = format!("waiting workers: {} local", number(&it["local"]));
    let _ = write!(text, ", {} network", number(&it["network"]));
    match number(&it["tunnels"]) {
        0 => {}
        tunnels => {
            let _ = write!(text, " in {}", count(tunnels, "tunnel"));
        }
    }
    for (key, name) in [("registered", "registered"), ("watching", "watching")] {
        match number(&it[key]) {
            0 => {}
            number => {
                let _ = write!(text, ", {number} {name}");
            }
        }
    }
    text
}

/// Each `[[join]]`, its local server and its fronts.
pub(super) fn joins(joins: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for join in items(joins) {
        rows.push(vec![
            word(&join["backend"]),
            format!("local server {}", word(&join["server"])),
            format!("{} offers at each front", number(&join["offers"])),
        ]);
        rows.extend(items(&join["addresses"]).map(|it| {
            vec![
                format!("  to {}", word(&it["address"])),
                address_state(it),
                format!("{} open", number(&it["connections"])),
            ]
        }));
        rows.extend(items(&join["fronts"]).map(front));
    }
    rows
}

fn front(it: &Value) -> Vec<String> {
    let state = format!("{} since {}", word(&it["state"]), since(&it["since"]));
    let counts = format!(
        "{}, {} waiting, {} open, {} served",
        count(number(&it["tunnels"]), "tunnel"),
        count(number(&it["offers"]), "offer"),
        number(&it["connections"]),
        number(&it["served"])
    );
    let trouble = match it["trouble"].is_string() {
        true => word(&it["trouble"]),
        false => String::new(),
    };
    vec![
        format!("  front {}", word(&it["address"])),
        state,
        counts,
        trouble,
    ]
}

/// Without the fraction of a second.
fn since(time: &Value) -> String {
    let time = word(time);
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time,
    }
}

/// What a connection has to do with tunnels: the one that carries it, or its own streams.
pub(super) fn of_connection(it: &Value) -> [String; 2] {
    let tunnel = match it["streams"].as_u64() {
        Some(streams) => format!("carries {}", count(streams, "stream")),
        None => word(&it["tunnel"]),
    };
    [tunnel, word(&it["authority"])]
}

fn count(number: u64, name: &str) -> String {
    match number {
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
