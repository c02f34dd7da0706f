//! The table of connections.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use serde_json::Value;

use super::text::{columns, fit};
use super::theme::Theme;
use crate::cli::admin::show::{bytes, identity, seconds, word};
use crate::cli::top::action::{Order, Sort, SortKey};
use crate::cli::top::state::{State, short};

/// A column, in the order of the table.
struct Column {
    title: &'static str,
    cell: fn(&Value) -> String,
    /// The least width, the one that is enough, and the largest.
    width: (usize, usize, usize),
    align: Align,
    /// Where there is no room for all, those with the lowest rank stay.
    rank: usize,
    sort: Option<SortKey>,
}

#[derive(Clone, Copy, PartialEq)]
enum Align {
    Left,
    Right,
}

const COLUMNS: [Column; 11] = [
    column("ID", (8, 8, 8), 9, |it| short(&word(&it["id"])).to_owned()),
    column("STATE", (8, 11, 11), 4, |it| word(&it["state"])),
    number("AGE", (6, 8, 8), 1, SortKey::Age, |it| seconds(&it["age"])),
    number("IDLE", (6, 8, 8), 7, SortKey::Idle, |it| {
        seconds(&it["idle"])
    }),
    number("IN", (7, 10, 10), 2, SortKey::BytesIn, |it| {
        bytes(&it["bytes_in"])
    }),
    number("OUT", (7, 10, 10), 3, SortKey::BytesOut, |it| {
        bytes(&it["bytes_out"])
    }),
    column("PEER", (12, 24, 47), 0, |it| word(&it["peer"])),
    column("LISTENER", (8, 12, 20), 10, |it| word(&it["listener"])),
    column("BACKEND", (7, 12, 24), 5, |it| word(&it["backend"])),
    column("SNI", (8, 20, 40), 8, |it| word(&it["tls"]["sni"])),
    column("IDENTITY", (9, 20, 72), 6, |it| identity(&it["identity"])),
];

const fn column(
    title: &'static str,
    width: (usize, usize, usize),
    rank: usize,
    cell: fn(&Value) -> String,
) -> Column {
    Column {
        title,
        cell,
        width,
        align: Align::Left,
        rank,
        sort: None,
    }
}

const fn number(
    title: &'static str,
    width: (usize, usize, usize),
    rank: usize,
    sort: SortKey,
    cell: fn(&Value) -> String,
) -> Column {
    Column {
        title,
        cell,
        width,
        align: Align::Right,
        rank,
        sort: Some(sort),
    }
}

/// Draws the head and the rows from `state.offset` on.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let height = usize::from(area.height.saturating_sub(1));
    let visible = state.rows.iter().skip(state.offset).take(height);
    let cells = visible.map(|row| COLUMNS.each_ref().map(|it| (it.cell)(row)));
    let cells: Vec<[String; COLUMNS.len()]> = cells.collect();
    let titles = COLUMNS.each_ref().map(|it| it.titled(state.sort));
    let widths = widths(&titles, &cells, area.width.into());
    let mut lines = vec![Line::styled(row(&titles, &widths), theme.strong())];
    for (index, cells) in cells.iter().enumerate() {
        let text = row(cells, &widths);
        lines.push(match state.offset + index == state.cursor {
            true => Line::styled(format!("{text:<0$}", area.width.into()), theme.cursor()),
            false => Line::raw(text),
        });
    }
    if cells.is_empty() {
        lines.push(Line::styled(nothing(state), theme.label()));
    }
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn nothing(state: &State) -> String {
    match state.filter.is_empty() {
        true => "no open connections".into(),
        false => format!("no connection matches {}", state.filter.text()),
    }
}

impl Column {
    /// The title, with an arrow if the rows are sorted by it.
    fn titled(&self, sort: Sort) -> String {
        let is_sum = sort.key == SortKey::Bytes;
        let is_by = self.sort == Some(sort.key)
            || is_sum && matches!(self.sort, Some(SortKey::BytesIn | SortKey::BytesOut));
        let arrow = match (is_by, sort.order) {
            (false, _) => "",
            (true, Order::Falling) => "▼",
            (true, Order::Rising) => "▲",
        };
        format!("{}{arrow}", self.title)
    }
}

/// The width of each column. Zero: there is no room for it.
fn widths<const N: usize>(
    titles: &[String; N],
    cells: &[[String; N]],
    available: usize,
) -> [usize; N] {
    let needed = |at: usize| {
        let longest = cells.iter().map(|row| columns(&row[at])).max();
        longest.unwrap_or(0).max(columns(&titles[at]))
    };
    let mut widths = [0; N];
    let mut ranked: Vec<usize> = (0..N).collect();
    ranked.sort_by_key(|at| COLUMNS[*at].rank);
    let mut free = available + GAP;
    for at in &ranked {
        let (least, enough, _) = COLUMNS[*at].width;
        let wanted = needed(*at).clamp(least, enough) + GAP;
        if wanted > free {
            // The last one may be narrow.
            let least = least.max(columns(&titles[*at])) + GAP;
            if least <= free {
                widths[*at] = free - GAP;
                free = 0;
            }
            break;
        }
        widths[*at] = wanted - GAP;
        free -= wanted;
    }
    ranked.retain(|at| widths[*at] > 0);
    for at in ranked {
        let wanted = needed(at).min(COLUMNS[at].width.2);
        let more = wanted.saturating_sub(widths[at]).min(free);
        widths[at] += more;
        free -= more;
    }
    widths
}

fn row<const N: usize>(cells: &[String; N], widths: &[usize; N]) -> String {
    let mut text = String::new();
    for ((cell, width), column) in cells.iter().zip(widths).zip(&COLUMNS) {
        if *width == 0 {
            continue;
        }
        let cell = fit(cell, *width);
        let blank = " ".repeat(width - columns(&cell));
        let (before, after) = match column.align {
            Align::Left => ("", &*blank),
            Align::Right => (&*blank, ""),
        };
        if !text.is_empty() {
            text.push_str(&" ".repeat(GAP));
        }
        text.extend([before, &cell, after]);
    }
    text
}

const GAP: usize = 1;
