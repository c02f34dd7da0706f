//! Limits, backends, certificates and outcomes, as lines: a few of them beside each other, or all on a page.

mod joins;

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use serde_json::Value;

use self::joins::{joins, kind, tunnels};
use super::text::{columns, fit, grouped};
use super::theme::Theme;
use crate::cli::admin::show::{address_state, bytes, items, list, word};
use crate::cli::top::action::Page;
use crate::cli::top::state::State;

/// How much there is room for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// What needs attention.
    Brief,
    Full,
}

/// The lines of a page other than the connections. What needs attention is first.
pub(super) fn lines(
    page: Page,
    state: &State,
    extent: Extent,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let status = &state.status;
    match page {
        Page::Connections => Vec::new(),
        Page::Backends => {
            let mut lines = backends(&status["backends"], extent, width, theme);
            lines.extend(joins(&status["joins"], extent, width, theme));
            lines
        }
        Page::Certificates => certificates(&status["certificates"], width, theme),
        Page::Limits => limits(status, width, theme),
        Page::Outcomes => outcomes(&status["connections"]["ended"], theme),
    }
}

fn limits(status: &Value, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let limits = items(&status["limits"]).map(|it| Gauge {
        name: word(&it["name"]),
        used: it["used"].as_u64(),
        limit: it["limit"].as_u64(),
        shown: |it| grouped(it.as_u64().unwrap_or_default()),
    });
    let memory = &status["memory"];
    let used = memory["used"].as_u64().or(memory["resident"].as_u64());
    let process = [
        Gauge {
            name: "memory".into(),
            used,
            limit: memory["max"].as_u64(),
            shown: bytes,
        },
        Gauge {
            name: "descriptors".into(),
            used: status["descriptors"]["open"].as_u64(),
            limit: status["descriptors"]["limit"].as_u64(),
            shown: |it| grouped(it.as_u64().unwrap_or_default()),
        },
    ];
    let gauges = limits.chain(process);
    gauges.map(|it| it.line(width, theme)).collect()
}

/// What is used of a limit.
struct Gauge {
    name: String,
    used: Option<u64>,
    /// `None` is unlimited.
    limit: Option<u64>,
    shown: fn(&Value) -> String,
}

impl Gauge {
    fn line(&self, width: usize, theme: Theme) -> Line<'static> {
        let name = format!("{:<NAME$} ", fit(&self.name, NAME));
        let ratio = match (self.used, self.limit) {
            (Some(used), Some(limit)) if limit > 0 => Some(used as f64 / limit as f64),
            _ => None,
        };
        let style = match ratio {
            Some(ratio) if ratio >= 0.95 => theme.bad(),
            Some(ratio) if ratio >= 0.8 => theme.warning(),
            _ => theme.strong(),
        };
        let numbers = self.numbers(ratio, width.saturating_sub(NAME + 1));
        let free = width.saturating_sub(NAME + 1 + columns(&numbers) + 1);
        let bar = free.min(LONGEST_BAR);
        let mut spans = vec![Span::styled(name, theme.label())];
        if let Some(ratio) = ratio.filter(|_| bar >= SHORTEST_BAR) {
            let full = ((ratio * bar as f64).ceil() as usize).min(bar);
            spans.push(Span::styled("━".repeat(full), theme.graph()));
            spans.push(Span::styled("─".repeat(bar - full) + " ", theme.label()));
        }
        spans.push(Span::styled(numbers, style));
        Line::from(spans)
    }

    /// What is used, and of how much; in a few columns, how much of it.
    fn numbers(&self, ratio: Option<f64>, width: usize) -> String {
        let shown = |it: Option<u64>| it.map_or("?".into(), |it| (self.shown)(&it.into()));
        let used = shown(self.used);
        match (self.limit, ratio) {
            (None, _) => used,
            (limit, ratio) => {
                let whole = format!("{used} of {}", shown(limit));
                match ratio {
                    Some(ratio) if columns(&whole) > width => {
                        format!("{used}, {:.0} %", ratio * 100.0)
                    }
                    _ => whole,
                }
            }
        }
    }
}

fn backends(backends: &Value, extent: Extent, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut all: Vec<&Value> = items(backends).collect();
    let down = |it: &Value| items(&it["addresses"]).filter(|it| !is_up(it)).count();
    all.sort_by_key(|it| std::cmp::Reverse(down(it)));
    let mut lines = Vec::new();
    for backend in all {
        let addresses = items(&backend["addresses"]).count();
        let up = addresses - down(backend);
        let (health, style) = match (addresses, up) {
            (0, _) => (kind(backend), theme.label()),
            (1, 1) => ("up".into(), theme.good()),
            (1, 0) => (address_state(&backend["addresses"][0]), theme.bad()),
            (all, 0) => (format!("none of {all} up"), theme.bad()),
            (all, up) if all == up => (format!("{all} up"), theme.good()),
            (all, up) => (format!("{} of {all} not up", all - up), theme.warning()),
        };
        let open = grouped(backend["connections"].as_u64().unwrap_or_default());
        let name = word(&backend["name"]);
        lines.push(heading([&name, &health, &open], style, width, theme));
        let addresses = items(&backend["addresses"]);
        let (down, up): (Vec<_>, Vec<_>) = addresses.partition(|it| !is_up(it));
        let addresses = down.into_iter().chain(match extent {
            Extent::Brief => Vec::new(),
            Extent::Full => up,
        });
        lines.extend(addresses.map(|it| address(it, width, theme)));
    }
    lines
}

/// A group by its name, its health and the number of its open connections.
fn heading(
    [name, health, open]: [&str; 3],
    style: Style,
    width: usize,
    theme: Theme,
) -> Line<'static> {
    let free = width.saturating_sub(columns(health) + columns(open) + 7);
    Line::from(vec![
        Span::styled(fit(name, free.max(8)), theme.strong()),
        Span::raw(" "),
        Span::styled(health.to_owned(), style),
        Span::styled(format!(" {open} open"), theme.label()),
    ])
}

/// One of a group by its name and its state, and as much of the rest as there is room for.
fn member(
    [name, state, rest]: [&str; 3],
    style: Style,
    width: usize,
    theme: Theme,
) -> Line<'static> {
    let free = width.saturating_sub(3 + columns(name) + columns(state));
    Line::from(vec![
        Span::raw("  "),
        Span::raw(name.to_owned()),
        Span::raw(" "),
        Span::styled(state.to_owned(), style),
        Span::styled(fit(rest, free), theme.label()),
    ])
}

/// Whether it answers, and no operator has taken it out of service.
fn is_up(address: &Value) -> bool {
    address["state"] == "up" && address["health"] == "up"
}

fn address(it: &Value, width: usize, theme: Theme) -> Line<'static> {
    let state = address_state(it);
    let style = match (is_up(it), it["state"] == "up") {
        (true, _) => theme.good(),
        (false, true) => theme.bad(),
        // By order.
        (false, false) => theme.warning(),
    };
    let open = grouped(it["connections"].as_u64().unwrap_or_default());
    let error = it["error"]
        .as_str()
        .map(|_| format!(": {}", word(&it["error"])));
    let rest = format!(" {open} open{}{}", tunnels(it), error.unwrap_or_default());
    let name = word(&it["address"]);
    member([&name, &state, &rest], style, width, theme)
}

/// The server sends those that expire first at the beginning.
fn certificates(certificates: &Value, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let line = |it: &Value| {
        let days = it["days_left"].as_i64().unwrap_or_default();
        let (left, style) = match days {
            ..0 => ("expired".into(), theme.bad()),
            0..SOON => (format!("{days} days"), theme.warning()),
            _ => (
                format!("{} days", grouped(days.unsigned_abs())),
                theme.strong(),
            ),
        };
        let left = format!("{left:>LEFT$}");
        let names = format!("{} ({})", list(&it["names"]), word(&it["listener"]));
        let free = width.saturating_sub(columns(&left) + 1);
        Line::from(vec![
            Span::styled(left, style),
            Span::raw(" "),
            Span::raw(fit(&names, free)),
        ])
    };
    items(certificates).map(line).collect()
}

/// The most frequent first.
fn ended(ended: &Value) -> Vec<(String, u64)> {
    let counts = ended.as_object().into_iter().flatten();
    let counts = counts.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default()));
    let mut all: Vec<(String, u64)> = counts.collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all
}

fn outcomes(counts: &Value, theme: Theme) -> Vec<Line<'static>> {
    let all = ended(counts);
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let line = |(name, count): &(String, u64)| {
        let percent = *count as f64 * 100.0 / total.max(1) as f64;
        Line::from(vec![
            Span::raw(format!("{name:<20}")),
            Span::styled(format!("{:>15}", grouped(*count)), theme.strong()),
            Span::styled(format!("{percent:>8.1} %"), theme.label()),
        ])
    };
    match all.is_empty() {
        true => vec![Line::styled(NO_END, theme.label())],
        false => all.iter().map(line).collect(),
    }
}

/// All outcomes on one line.
pub(super) fn outcome_line(state: &State, width: usize, theme: Theme) -> Line<'static> {
    let all = ended(&state.status["connections"]["ended"]);
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let shown: Vec<String> = all
        .iter()
        .map(|(name, count)| format!("{name} {}", grouped(*count)))
        .collect();
    let shown = match all.is_empty() {
        true => "none".into(),
        false => format!("{}: {}", grouped(total), shown.join("  ")),
    };
    let label = "ended ";
    Line::from(vec![
        Span::styled(label, theme.label()),
        Span::raw(fit(&shown, width.saturating_sub(label.len()))),
    ])
}

const NO_END: &str = "no connection has ended yet";
/// Days in which a certificate should be renewed.
const SOON: i64 = 14;
const LEFT: usize = "366 days".len();
const NAME: usize = "descriptors".len();
const SHORTEST_BAR: usize = 3;
const LONGEST_BAR: usize = 40;
