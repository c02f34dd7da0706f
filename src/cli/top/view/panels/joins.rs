//! The fronts of `[[join]]`, the tunnels to an address, and the workers of a backend, as lines.

use ratatui::text::Line;
use serde_json::Value;

use super::{Extent, heading, member};
use crate::cli::admin::show::{items, word};
use crate::cli::top::view::text::grouped;
use crate::cli::top::view::theme::Theme;

/// Each join, and its fronts: in brief those that are not joined.
pub(super) fn joins(
    joins: &Value,
    extent: Extent,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for join in items(joins) {
        let fronts = items(&join["fronts"]).count();
        let joined = items(&join["fronts"]).filter(|it| is_joined(it)).count();
        let (health, style) = match (join["server"] == "up", joined) {
            (false, _) => ("server down".into(), theme.bad()),
            (true, joined) if joined == fronts => ("joined".into(), theme.good()),
            (true, 0) => ("not joined".into(), theme.bad()),
            (true, joined) => (format!("{joined} of {fronts} joined"), theme.warning()),
        };
        let open = items(&join["fronts"]).filter_map(|it| it["connections"].as_u64());
        let open = grouped(open.sum());
        let name = format!("join {}", word(&join["backend"]));
        lines.push(heading([&name, &health, &open], style, width, theme));
        let fronts = items(&join["fronts"]);
        let fronts = fronts.filter(|it| extent == Extent::Full || !is_joined(it));
        lines.extend(fronts.map(|it| front(it, width, theme)));
    }
    lines
}

fn is_joined(front: &Value) -> bool {
    front["state"] == "joined"
}

fn front(it: &Value, width: usize, theme: Theme) -> Line<'static> {
    let (name, state) = (word(&it["address"]), word(&it["state"]));
    let style = match is_joined(it) {
        true => theme.good(),
        false => theme.bad(),
    };
    let number = |key: &str| grouped(it[key].as_u64().unwrap_or_default());
    let rest = match it["trouble"].is_string() {
        true => format!(": {}", word(&it["trouble"])),
        false => format!(
            " {} open, {} offers, {} tunnels",
            number("connections"),
            number("offers"),
            number("tunnels")
        ),
    };
    member([&name, &state, &rest], style, width, theme)
}

/// What follows the number of open connections of an address.
pub(super) fn tunnels(address: &Value) -> String {
    match address["tunnels"]["open"].as_u64() {
        Some(1) => ", 1 tunnel".into(),
        Some(open) => format!(", {} tunnels", grouped(open)),
        None => String::new(),
    }
}

/// In place of the health of a backend without addresses: its kind, and how many workers wait.
pub(super) fn kind(backend: &Value) -> String {
    let kind = word(&backend["kind"]);
    let workers = &backend["workers"];
    if !workers.is_object() {
        return kind;
    }
    let number = |key: &str| workers[key].as_u64().unwrap_or_default();
    format!(
        "{kind}, {} waiting",
        grouped(number("local") + number("network"))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(lines: Vec<Line<'static>>) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fronts_that_are_not_joined_are_shown_in_brief_and_all_on_the_page() {
        let table = json!([{"backend": "app", "server": "up", "fronts": [
            {"address": "tcp:a:1", "state": "joined", "trouble": null, "tunnels": 2, "offers": 8, "connections": 3},
            {"address": "tcp:b:1", "state": "failing", "trouble": "cannot connect\u{1b}[2J", "tunnels": 0, "offers": 0,
             "connections": 0},
        ]}]);
        let brief = text(joins(&table, Extent::Brief, 60, Theme::plain()));
        assert_eq!(brief.len(), 2, "{brief:?}");
        assert!(brief[0].starts_with("join app") && brief[0].contains("1 of 2 joined"));
        assert!(brief[0].ends_with("3 open"), "{brief:?}");
        assert!(
            brief[1].contains("tcp:b:1 failing: cannot connect"),
            "{brief:?}"
        );
        assert!(!brief[1].contains('\u{1b}'), "{brief:?}");
        let full = text(joins(&table, Extent::Full, 60, Theme::plain()));
        assert!(
            full[1].contains("joined 3 open, 8 offers, 2 tunnels"),
            "{full:?}"
        );
        assert_eq!(full.len(), 3);
        for width in 0..80 {
            drop(joins(&table, Extent::Full, width, Theme::plain()));
        }
    }

    #[test]
    fn a_join_whose_server_is_down_says_so() {
        let table = json!([{"backend": "app", "server": "down", "fronts": []}]);
        let lines = text(joins(&table, Extent::Brief, 60, Theme::plain()));
        assert!(lines[0].contains("server down"), "{lines:?}");
        assert_eq!(
            text(joins(&Value::Null, Extent::Full, 60, Theme::plain())),
            [""; 0]
        );
    }

    #[test]
    fn tunnels_and_waiting_workers_have_their_numbers() {
        assert_eq!(
            tunnels(&json!({"tunnels": {"open": 1, "streams": 9}})),
            ", 1 tunnel"
        );
        assert_eq!(tunnels(&json!({"tunnels": null})), "");
        let gate = json!({"kind": "gate", "workers": {"local": 1, "network": 8}});
        assert_eq!(kind(&gate), "gate, 9 waiting");
        assert_eq!(kind(&json!({"kind": "hello", "workers": null})), "hello");
    }
}
