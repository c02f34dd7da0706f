//! What is shown over the rest: help, one connection in full, and the question before a kill.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Wrap};
use serde_json::Value;

use super::text::grouped;
use super::theme::Theme;
use crate::cli::admin::show::{bytes, items, seconds, word};
use crate::cli::top::state::{Detail, Mode, State};

pub(super) fn draw(frame: &mut Frame, state: &State, theme: Theme) {
    match &state.mode {
        Mode::Table | Mode::Filter(_) => {}
        Mode::Help => popup(frame, " Keys ", help(theme), theme),
        Mode::Details(detail) => {
            let title = match detail.is_listed {
                true => " Connection ",
                false => " Connection (no longer in the list) ",
            };
            popup(frame, title, details(detail, theme), theme);
        }
        Mode::Confirm { question, .. } => {
            let lines = vec![
                Line::styled(question.clone(), theme.strong()),
                Line::raw(""),
                Line::raw("y: end it     any other key: keep it"),
            ];
            popup(frame, " Kill ", lines, theme);
        }
    }
}

/// A box in the middle, as large as its text needs.
fn popup(frame: &mut Frame, title: &'static str, lines: Vec<Line<'static>>, theme: Theme) {
    let screen = frame.area();
    let longest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = (longest + 4).max(title.len() + 2).min(screen.width.into());
    let block = Block::bordered()
        .title(Span::styled(title, theme.strong()))
        .padding(Padding::horizontal(1));
    let inner = width.saturating_sub(4).max(1);
    let rows: usize = lines
        .iter()
        .map(|it| it.width().div_ceil(inner).max(1))
        .sum();
    let area = screen.centered(
        Constraint::Length(width as u16),
        Constraint::Length(u16::try_from(rows + 2).unwrap_or(u16::MAX)),
    );
    let area: Rect = area.intersection(screen);
    let text = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .block(block);
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}

fn details(detail: &Detail, theme: Theme) -> Vec<Line<'static>> {
    let row = &detail.row;
    let (tls, identity) = (&row["tls"], &row["identity"]);
    let mut lines = Vec::new();
    let mut say = |name: &str, value: String| {
        lines.push(Line::from(vec![
            Span::styled(format!("{name:<12}"), theme.label()),
            Span::raw(value),
        ]));
    };
    say("id", word(&row["id"]));
    say("state", word(&row["state"]));
    say("peer", word(&row["peer"]));
    say("local", word(&row["local"]));
    say("listener", word(&row["listener"]));
    say("backend", word(&row["backend"]));
    let since = format!(
        "{} ago, {}",
        seconds(&row["age"]),
        word(&row["accepted_at"])
    );
    say("accepted", since);
    say("idle", seconds(&row["idle"]));
    say("bytes in", size(&row["bytes_in"]));
    say("bytes out", size(&row["bytes_out"]));
    if tls.is_object() {
        for name in ["version", "cipher", "group", "sni", "alpn"] {
            say(&format!("tls {name}"), word(&tls[name]));
        }
        let is_resumed = tls["resumed"].as_bool().unwrap_or_default();
        say("tls resumed", if is_resumed { "yes" } else { "no" }.into());
    }
    if identity.is_object() {
        for kind in ["uri", "dns", "ou"] {
            items(&identity[kind]).for_each(|name| say(kind, word(name)));
        }
        for kind in ["cn", "sha256"] {
            if identity[kind].is_string() {
                say(kind, word(&identity[kind]));
            }
        }
    } else {
        say("identity", "no client certificate".into());
    }
    lines
}

fn size(value: &Value) -> String {
    let exact = value.as_u64().unwrap_or_default();
    match exact {
        0..1024 => format!("{exact} bytes"),
        _ => format!("{} ({} bytes)", bytes(value), grouped(exact)),
    }
}

fn help(theme: Theme) -> Vec<Line<'static>> {
    let line = |(keys, text): &(&'static str, &'static str)| {
        Line::from(vec![
            Span::styled(format!("{keys:<16}"), theme.strong()),
            Span::raw(*text),
        ])
    };
    KEYS.iter().map(line).collect()
}

const KEYS: [(&str, &str); 15] = [
    ("Up Down", "choose a connection; also PgUp PgDn Home End"),
    ("Enter", "show its details"),
    ("k", "end it, after a question"),
    ("/", "filter: peer= identity= backend= listener="),
    ("", "sni= state=, or words; empty: all"),
    (
        "a d b i o",
        "sort by age, idle, bytes, bytes in, bytes out;",
    ),
    ("", "the same key again: the other way round"),
    ("s r", "sort by the next one; reverse"),
    ("Tab Shift-Tab", "backends, certificates, limits, outcomes"),
    ("p Space", "pause and go on"),
    ("? h", "this help"),
    ("Esc", "back: close, all connections, quit"),
    ("q Ctrl-C", "quit"),
    ("", ""),
    ("", "in: from clients   out: to clients"),
];
