//! An event as a line for people.

use serde_json::Value;
use vestibule::printable;

/// One line: when, what, who, and how it ended.
pub(super) fn row(event: &Value) -> String {
    let word = text(event, "event");
    let columns = match word {
        "open" | "close" | "refuse" => connection(event),
        _ => others(event),
    };
    // Names in certificates and the server name are the client's choice.
    printable::line(&format!("{}  {word:<8}  {columns}", text(event, "time")))
}

fn connection(event: &Value) -> String {
    let id = text(event, "id").get(..8).unwrap_or("-");
    let backend = match text(event, "backend") {
        "" => "-",
        name => name,
    };
    let mut columns = vec![
        id.to_owned(),
        text(event, "listener").to_owned(),
        format!("{} -> {backend}", text(event, "peer")),
        identity(&event["identity"]),
    ];
    if let Some(sni) = event["tls"]["sni"].as_str() {
        columns.push(format!("sni={sni}"));
    }
    if let Some(seconds) = event["seconds"].as_f64() {
        columns.extend([
            text(event, "outcome").to_owned(),
            format!("{seconds} s"),
            format!("in={} out={}", event["bytes_in"], event["bytes_out"]),
            text(event, "cause").to_owned(),
        ]);
    }
    columns.join("  ")
}

/// All other fields, each with its name.
fn others(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, _)| !matches!(key.as_str(), "time" | "event"));
    let fields: Vec<String> = fields
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    fields.join("  ")
}

/// The most specific name of a client.
fn identity(identity: &Value) -> String {
    for kind in ["uri", "dns", "cn", "sha256"] {
        let names = &identity[kind];
        if let Some(name) = names.as_str().or_else(|| names[0].as_str()) {
            return format!("{kind}:{name}");
        }
    }
    "-".into()
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or("-")
}
