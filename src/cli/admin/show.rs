//! The answers of the admin API as text for people.

mod tunnels;

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use humantime::format_duration;
use serde_json::Value;
use vestibule::printable;

use self::tunnels::{joins, of_connection, tunnels, workers};

/// The state of a process, on one screen.
pub(super) fn status(status: &Value) -> String {
    let mut text = format!(
        "vestibule {}, process {}, {} for {}\n",
        word(&status["version"]),
        status["pid"],
        word(&status["state"]),
        seconds(&status["uptime"])
    );
    section(&mut text, "listeners", rows(&status["listeners"], listener));
    section(&mut text, "backends", backends(&status["backends"]));
    section(&mut text, "joins", joins(&status["joins"]));
    let connections = &status["connections"];
    line(
        &mut text,
        "connections",
        &format!(
            "{} open, {} without a backend yet",
            connections["open"], connections["pending"]
        ),
    );
    let ended = entries(&connections["ended"], |name, count| {
        format!("{name} {count}")
    });
    line(&mut text, "ended", &or_none(ended));
    let limits = items(&status["limits"]);
    let limits =
        limits.map(|it| format!("{} {}", word(&it["name"]), of(&it["used"], &it["limit"])));
    line(&mut text, "limits", &limits.collect::<Vec<_>>().join(", "));
    line(&mut text, "memory", &memory(&status["memory"]));
    let descriptors = &status["descriptors"];
    line(
        &mut text,
        "descriptors",
        &of(&descriptors["open"], &descriptors["limit"]),
    );
    section(
        &mut text,
        "certificates",
        rows(&status["certificates"], certificate),
    );
    let reloads = &status["reloads"];
    line(
        &mut text,
        "reloads",
        &format!("{} ok, {} failed", reloads["succeeded"], reloads["failed"]),
    );
    let problem = &status["last_problem"];
    if problem.is_object() {
        // Several mistakes in a configuration are several lines.
        let message = problem["message"].as_str().unwrap_or_default();
        let message = Value::from(message.replace('\n', "; "));
        let said = format!("{}: {}", word(&problem["time"]), word(&message));
        line(&mut text, "last problem", &said);
    }
    text
}

/// Open connections as a table. The columns of tunnels are there if a connection has to do with one.
pub(super) fn connections(connections: &[Value]) -> String {
    let heads = [
        "ID", "STATE", "AGE", "IDLE", "IN", "OUT", "PEER", "LISTENER", "BACKEND", "SNI", "IDENTITY",
    ];
    let has_tunnels = connections
        .iter()
        .any(|it| it["tunnel"].is_string() || it["streams"].is_u64());
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    if has_tunnels {
        rows[0].extend(["TUNNEL", "AUTHORITY"].map(str::to_owned));
    }
    rows.extend(connections.iter().map(|it| {
        let mut row = vec![
            word(&it["id"]),
            word(&it["state"]),
            seconds(&it["age"]),
            seconds(&it["idle"]),
            bytes(&it["bytes_in"]),
            bytes(&it["bytes_out"]),
            word(&it["peer"]),
            word(&it["listener"]),
            word(&it["backend"]),
            word(&it["tls"]["sni"]),
            identity(&it["identity"]),
        ];
        if has_tunnels {
            row.extend(of_connection(it));
        }
        row
    }));
    table("", &rows)
}

fn memory(it: &Value) -> String {
    let max = match it["max"].as_u64() {
        Some(max) => format!("of {}", ByteSize(max)),
        None => "(unlimited)".into(),
    };
    let pressure = match it["pressure"].as_str() {
        Some("none") | None => String::new(),
        Some(_) => format!(", {}", word(&it["pressure"])),
    };
    format!("{} {max}{pressure}", bytes(&it["used"]))
}

fn listener(it: &Value) -> Vec<String> {
    let tls = match it["tls"].as_bool() {
        Some(true) => "TLS",
        _ => "without TLS",
    };
    vec![
        word(&it["name"]),
        list(&it["addresses"]),
        tls.into(),
        tunnels(&it["tunnels"]),
    ]
}

fn backends(backends: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for backend in items(backends) {
        rows.push(vec![
            word(&backend["name"]),
            word(&backend["kind"]),
            format!("{} open", backend["connections"]),
            workers(&backend["workers"]),
        ]);
        rows.extend(items(&backend["addresses"]).map(|it| {
            vec![
                format!("  {}", word(&it["address"])),
                address_state(it),
                format!("{} open", it["connections"]),
                told([
                    tunnels(&it["tunnels"]),
                    word(&it["error"]).replace(NOTHING, ""),
                ]),
            ]
        }));
    }
    rows
}

/// Its health, and what an operator has ordered.
pub(in crate::cli) fn address_state(address: &Value) -> String {
    match address["state"].as_str() {
        None | Some("up") => word(&address["health"]),
        Some(_) => format!(
            "{} ({} by order)",
            word(&address["health"]),
            word(&address["state"])
        ),
    }
}

fn certificate(it: &Value) -> Vec<String> {
    vec![
        word(&it["listener"]),
        list(&it["names"]),
        format!("{} days left", it["days_left"]),
    ]
}

/// The name of an identity that tells most.
pub(in crate::cli) fn identity(it: &Value) -> String {
    let first = |key: &str| it[key].get(0).map(|name| format!("{key}:{}", word(name)));
    let cn = || {
        it["cn"]
            .as_str()
            .map(|cn| format!("cn:{}", printable::line(cn)))
    };
    let digest = || it["sha256"].as_str().map(|it| format!("sha256:{it}"));
    let name = first("uri").or_else(|| first("dns")).or_else(cn);
    name.or_else(digest).unwrap_or(NOTHING.into())
}

/// What is there of it, on one line.
fn told<const N: usize>(parts: [String; N]) -> String {
    let parts = parts.into_iter().filter(|it| !it.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

fn section(text: &mut String, name: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "{name}");
    text.push_str(&table("  ", &rows));
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<13} {value}");
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    items(list).map(row).collect()
}

pub(in crate::cli) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn entries(object: &Value, shown: impl Fn(&str, &Value) -> String) -> Vec<String> {
    let entries = object.as_object().into_iter().flatten();
    entries.map(|(name, value)| shown(name, value)).collect()
}

fn or_none(list: Vec<String>) -> String {
    match list.is_empty() {
        true => "none".into(),
        false => list.join(", "),
    }
}

/// Columns that are as wide as their widest cell.
fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        let row = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{indent}{}", row.trim_end());
    }
    text
}

/// A string as it may be printed: clients choose some of them.
pub(in crate::cli) fn word(value: &Value) -> String {
    match value.as_str() {
        Some("") | None => NOTHING.into(),
        Some(text) => printable::line(text),
    }
}

pub(in crate::cli) fn list(value: &Value) -> String {
    let all: Vec<String> = items(value).map(word).collect();
    match &all[..] {
        [one, two, three, _, ..] => format!("{one}, {two}, {three} and {} more", all.len() - 3),
        few => few.join(", "),
    }
}

fn of(used: &Value, limit: &Value) -> String {
    match limit.as_u64() {
        Some(limit) => format!("{used} of {limit}"),
        None => format!("{used} (unlimited)"),
    }
}

pub(in crate::cli) fn bytes(value: &Value) -> String {
    value
        .as_u64()
        .map_or(NOTHING.into(), |it| ByteSize(it).to_string())
}

/// The two largest units are enough for people.
pub(in crate::cli) fn seconds(value: &Value) -> String {
    let whole = Duration::from_secs(value.as_f64().unwrap_or_default() as u64);
    let text = format_duration(whole).to_string();
    let units: Vec<&str> = text.split(' ').take(2).collect();
    units.join(" ")
}

const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_choose_cannot_control_the_terminal() {
        let row = json!({
            "id": "7f8c", "state": "relaying", "age": 3723.9, "idle": 61.2, "bytes_in": 5, "bytes_out": 2048,
            "peer": null, "listener": "https", "backend": "app", "tls": {"sni": "a\u{1b}[2Jb\nc"},
            "identity": {"uri": [], "dns": [], "cn": "x\u{7}", "ou": [], "sha256": "ab"},
        });
        let text = connections(&[row]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        assert!(
            text.contains("1h 2m") && text.contains("1m 1s") && text.contains("2.0 KiB"),
            "{text}"
        );
    }
}
