//! Draws the state. What is drawn depends on the state and the size of the terminal alone.

mod charts;
mod panels;
mod popups;
mod table;
mod text;
pub(super) mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use self::panels::Extent;
use self::text::{columns, fit, grouped};
use self::theme::Theme;
use super::action::Page;
use super::state::{Link, Mode, State};
use crate::cli::admin::show::{seconds, word};

/// The parts of the screen. Those that a small terminal has no room for are empty.
struct Parts {
    header: Rect,
    charts: Rect,
    outcomes: Rect,
    panels: Rect,
    tabs: Rect,
    body: Rect,
    footer: Rect,
    is_small: bool,
}

impl Parts {
    fn of(area: Rect, state: &State, theme: Theme) -> Self {
        let is_small = area.height < 18 || area.width < 60;
        let across = if area.width < 140 { 2 } else { 1 };
        let chart = match area.height {
            0..36 => 2,
            36..48 => 3,
            _ => 4,
        };
        let (charts, outcomes, panels) = match (is_small, state.page) {
            (true, _) => (if area.height < 10 { 1 } else { 2 }, 0, 0),
            (false, Page::Connections) => {
                let most = (area.height / 4).max(6);
                (
                    chart * across,
                    1,
                    panel_height(area.width, state, theme).min(most),
                )
            }
            (false, _) => (chart * across, 1, 0),
        };
        let heights = [1, charts, outcomes, panels, 1].map(Constraint::Length);
        let rest = [Constraint::Fill(1), Constraint::Length(1)];
        let all = Layout::vertical([&heights[..], &rest[..]].concat()).split(area);
        Self {
            header: all[0],
            charts: all[1],
            outcomes: all[2],
            panels: all[3],
            tabs: all[4],
            body: all[5],
            footer: all[6],
            is_small,
        }
    }
}

/// The lines that the longest panel needs, with its title.
fn panel_height(width: u16, state: &State, theme: Theme) -> u16 {
    let lengths = PANELS
        .map(|(page, _)| panels::lines(page, state, Extent::Brief, width.into(), theme).len());
    let longest = lengths.into_iter().max().unwrap_or(0);
    u16::try_from(longest + 1).unwrap_or(u16::MAX)
}

/// The panels, and their shares of the width.
const PANELS: [(Page, u16); 3] = [
    (Page::Limits, 12),
    (Page::Backends, 11),
    (Page::Certificates, 9),
];

/// The rows of the table or page that fit, and the lines that the page has.
pub(super) fn extent(area: Rect, state: &State, theme: Theme) -> (usize, usize) {
    let parts = Parts::of(area, state, theme);
    let height = usize::from(parts.body.height);
    match state.page {
        // One is the head.
        Page::Connections => (height.saturating_sub(1), 0),
        page => {
            let lines = panels::lines(page, state, Extent::Full, parts.body.width.into(), theme);
            (height, lines.len())
        }
    }
}

pub(super) fn draw(frame: &mut Frame, state: &State, theme: Theme) {
    let parts = Parts::of(frame.area(), state, theme);
    header(frame, parts.header, state, theme);
    match parts.is_small {
        true => charts::numbers(frame, parts.charts, state, theme),
        false => charts::draw(frame, parts.charts, state, theme),
    }
    let line = panels::outcome_line(state, parts.outcomes.width.into(), theme);
    frame.render_widget(line, parts.outcomes);
    panel_row(frame, parts.panels, state, theme);
    tabs(frame, parts.tabs, state, theme);
    match state.page {
        Page::Connections => table::draw(frame, parts.body, state, theme),
        page => {
            let lines = panels::lines(page, state, Extent::Full, parts.body.width.into(), theme);
            let visible: Vec<Line> = lines.into_iter().skip(state.scroll).collect();
            frame.render_widget(Paragraph::new(visible), parts.body);
        }
    }
    if let Link::Lost { .. } = state.link {
        // What is shown is from before.
        let stale = Style::new().add_modifier(Modifier::DIM);
        for part in [parts.charts, parts.outcomes, parts.panels, parts.body] {
            frame.buffer_mut().set_style(part, stale);
        }
    }
    footer(frame, parts.footer, state, theme);
    popups::draw(frame, state, theme);
}

fn header(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let status = &state.status;
    let (badge, style) = match (&state.link, status["state"].as_str()) {
        (Link::Lost { since, .. }, _) => {
            let age = state.now.saturating_sub(*since).as_secs();
            (format!(" LOST, data {age} s old "), theme.bad())
        }
        (Link::Live, Some("running")) => ("ready".into(), theme.good()),
        (Link::Live, _) => (format!(" {} ", word(&status["state"])), theme.warning()),
    };
    let mut spans = vec![
        Span::styled(
            format!("vestibule {}", word(&status["version"])),
            theme.strong(),
        ),
        Span::raw("  "),
        Span::styled(badge, style),
    ];
    if state.is_paused {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(" PAUSED ", theme.warning()));
    }
    let mut line = Line::from(spans);
    let up = format!("  up {}", seconds(&status["uptime"]));
    for more in [up, format!("  process {}", status["pid"])] {
        if line.width() + more.len() <= area.width.into() {
            line.push_span(Span::raw(more));
        }
    }
    let free = usize::from(area.width).saturating_sub(line.width() + 2);
    let address = fit(&state.address, free);
    frame.render_widget(line, area);
    if columns(&address) > 8 {
        // The style of a line would be that of the whole row.
        let address = Span::styled(address, theme.label());
        let address = Line::from(address).right_aligned();
        frame.render_widget(address, area);
    }
}

/// Limits, backends and certificates beside each other.
fn panel_row(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let widths = PANELS.map(|(_, share)| Constraint::Fill(share));
    let cells = Layout::horizontal(widths).spacing(2).split(area);
    for (cell, (page, _)) in cells.iter().zip(PANELS) {
        let title = format!("{} ", name(page));
        let rule = "─".repeat(usize::from(cell.width).saturating_sub(title.len()));
        let mut lines = vec![Line::from(vec![
            Span::styled(title, theme.strong()),
            Span::styled(rule, theme.label()),
        ])];
        let mut content = panels::lines(page, state, Extent::Brief, cell.width.into(), theme);
        let room = usize::from(cell.height).saturating_sub(1);
        if content.len() > room {
            let hidden = content.len() - room + 1;
            content.truncate(room.saturating_sub(1));
            content.push(Line::styled(format!("{hidden} more: Tab"), theme.label()));
        }
        lines.extend(content);
        frame.render_widget(Paragraph::new(lines), *cell);
    }
}

/// The names of the pages, and what the table shows.
fn tabs(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let mut spans = Vec::new();
    for page in Page::ALL {
        let is_current = page == state.page;
        let style = match is_current {
            true => theme.strong().add_modifier(Modifier::UNDERLINED),
            false => theme.label(),
        };
        if is_current || area.width >= 70 {
            spans.push(Span::styled(name(page), style));
            spans.push(Span::raw("  "));
        }
    }
    let line = Line::from(spans);
    let free = usize::from(area.width).saturating_sub(line.width() + 1);
    frame.render_widget(line, area);
    if state.page == Page::Connections {
        let shown = Line::raw(fit(&selection(state), free)).right_aligned();
        frame.render_widget(shown, area);
    }
}

/// How many rows there are, and which.
fn selection(state: &State) -> String {
    let shown = state.rows.len() as u64;
    let count = match state.total {
        total if total > shown => format!("{} of {}", grouped(shown), grouped(total)),
        total => grouped(total),
    };
    match state.filter.is_empty() {
        true => count,
        false => format!("{} ({count})", state.filter.text()),
    }
}

fn name(page: Page) -> &'static str {
    match page {
        Page::Connections => "Connections",
        Page::Backends => "Backends",
        Page::Certificates => "Certificates",
        Page::Limits => "Limits",
        Page::Outcomes => "Outcomes",
    }
}

fn footer(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let width = usize::from(area.width);
    let line = match (&state.mode, &state.notice, &state.link) {
        (_, Some(notice), _) if notice.is_problem => {
            Line::styled(fit(&notice.text, width), theme.warning())
        }
        (Mode::Filter(text), ..) => return prompt(frame, area, text, theme),
        (_, Some(notice), _) => Line::styled(fit(&notice.text, width), theme.strong()),
        (_, None, Link::Lost { why, .. }) => {
            let said = format!("trying again: {why}");
            Line::styled(fit(&said, width), theme.bad())
        }
        (_, None, Link::Live) => hints(state, width, theme),
    };
    frame.render_widget(line, area);
}

/// As many keys as there is room for.
fn hints(state: &State, width: usize, theme: Theme) -> Line<'static> {
    let all = [
        ("q", "quit", true),
        ("?", "help", true),
        ("/", "filter", true),
        ("k", "kill", state.may_kill()),
        ("Enter", "details", true),
        ("s", "sort", true),
        ("p", if state.is_paused { "go on" } else { "pause" }, true),
        ("Tab", "next page", true),
    ];
    let mut line = Line::default();
    for (key, what, _) in all.into_iter().filter(|(.., is_offered)| *is_offered) {
        if line.width() + key.len() + what.len() + 3 > width {
            break;
        }
        line.push_span(Span::styled(key, theme.strong()));
        line.push_span(Span::styled(format!(" {what}  "), theme.label()));
    }
    line
}

/// The line in which a filter is typed.
fn prompt(frame: &mut Frame, area: Rect, text: &str, theme: Theme) {
    let room = usize::from(area.width).saturating_sub(3);
    // The end is where the cursor is.
    let mut shown = vestibule::printable::line(text);
    while columns(&shown) > room {
        shown.remove(0);
    }
    let end = area.x + 1 + columns(&shown) as u16;
    let hint = "  Enter: apply   Esc: cancel";
    let mut line = Line::from(vec![Span::styled("/", theme.strong()), Span::raw(shown)]);
    if line.width() + hint.len() < area.width.into() {
        line.push_span(Span::styled(hint, theme.label()));
    }
    frame.render_widget(line, area);
    frame.set_cursor_position((end.min(area.right().saturating_sub(1)), area.y));
}
