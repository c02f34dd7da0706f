//! The load as numbers and charts.

use bytesize::ByteSize;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::text::{columns, grouped, rate};
use super::theme::Theme;
use crate::cli::top::history::Sample;
use crate::cli::top::state::State;

/// One number over time.
struct Chart {
    name: &'static str,
    value: fn(&Sample) -> f64,
    /// How the newest value and the largest one are written.
    now: fn(&Sample) -> String,
    most: fn(f64) -> String,
}

const CHARTS: [Chart; 4] = [
    Chart {
        name: "open",
        value: |it| it.open,
        now: |it| grouped(it.open as u64),
        most: |most| grouped(most as u64),
    },
    Chart {
        name: "handshakes",
        value: |it| it.handshakes,
        now: |it| rate(it.handshakes),
        most: rate,
    },
    Chart {
        name: "pending",
        value: |it| it.pending,
        now: |it| grouped(it.pending as u64),
        most: |most| grouped(most as u64),
    },
    Chart {
        name: "bytes",
        value: |it| it.bytes_in + it.bytes_out,
        now: |it| format!("in {}/s  out {}/s", size(it.bytes_in), size(it.bytes_out)),
        most: |most| format!("{}/s", size(most)),
    },
];

/// Four charts: in one row, or in two.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let across = match area.width {
        0..=139 => 2,
        _ => 4,
    };
    let rows = Layout::vertical(vec![Constraint::Fill(1); CHARTS.len() / across]).split(area);
    for (row, charts) in rows.iter().zip(CHARTS.chunks(across)) {
        let columns = vec![Constraint::Fill(1); across];
        let cells = Layout::horizontal(columns).spacing(2).split(*row);
        for (cell, chart) in cells.iter().zip(charts) {
            chart.draw(frame, *cell, state, theme);
        }
    }
}

/// The numbers alone, for a small terminal.
pub(super) fn numbers(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let newest = state.history.newest();
    let mut lines = vec![Line::default()];
    for chart in &CHARTS {
        let now = (chart.now)(&newest);
        let width = chart.name.len() + 1 + columns(&now);
        let last = lines.len() - 1;
        let used = lines[last].width();
        if used > 0 && used + width > area.width.into() {
            lines.push(Line::default());
        }
        let last = lines.len() - 1;
        lines[last].push_span(Span::styled(format!("{} ", chart.name), theme.label()));
        lines[last].push_span(Span::styled(format!("{now}  "), theme.strong()));
    }
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

impl Chart {
    fn draw(&self, frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
        let newest = state.history.newest();
        let values = state.history.chart(area.width.into(), self.value);
        let most = values
            .iter()
            .flatten()
            .fold(0.0, |most: f64, it| most.max(*it));
        let minutes = state.history.span().as_secs() / 60;
        let now = (self.now)(&newest);
        let most_shown = format!("max {} in {minutes} min", (self.most)(most));
        let used = self.name.len() + 1 + columns(&now);
        let mut spans = vec![
            Span::styled(format!("{} ", self.name), theme.label()),
            Span::styled(now, theme.strong()),
        ];
        let free = usize::from(area.width).saturating_sub(used);
        if free > columns(&most_shown) + 1 {
            let padded = format!("{most_shown:>free$}");
            spans.push(Span::styled(padded, theme.label()));
        }
        let mut lines = vec![Line::from(spans)];
        let height = usize::from(area.height.saturating_sub(1));
        let painted = painted(&values, most, height).into_iter();
        lines.extend(painted.map(|row| Line::styled(row, theme.graph())));
        for (line, row) in lines.iter().zip(area.rows()) {
            frame.render_widget(line, row);
        }
    }
}

/// Columns of blocks, from the top row down. A value of zero is a line at the bottom, no value is a gap.
fn painted(values: &[Option<f64>], most: f64, height: usize) -> Vec<String> {
    let levels = height * EIGHTHS.len();
    let level = |value: f64| match most > 0.0 {
        true => ((value / most * levels as f64).round() as usize).max(1),
        false => 1,
    };
    let row = |above: usize| -> String {
        let below = (height - 1 - above) * EIGHTHS.len();
        let block = |value: &Option<f64>| match value.map(level) {
            Some(level) if level > below => EIGHTHS[(level - below).min(EIGHTHS.len()) - 1],
            _ => ' ',
        };
        values.iter().map(block).collect()
    };
    (0..height).map(row).collect()
}

fn size(bytes: f64) -> ByteSize {
    ByteSize(bytes.round() as u64)
}

const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_from_the_bottom_and_gaps_stay_empty() {
        let values = [None, Some(0.0), Some(4.0), Some(8.0)];
        assert_eq!(painted(&values, 8.0, 1), [" ▁▄█"]);
        assert_eq!(painted(&values, 8.0, 2), ["   █", " ▁██"]);
        assert_eq!(painted(&[Some(0.0)], 0.0, 2), [" ", "▁"]);
        assert!(painted(&values, 8.0, 0).is_empty());
    }
}
