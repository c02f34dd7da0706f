//! Numbers and names as they are shown.

use ratatui::text::Span;

/// A whole number with separators: `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A rate per second: one decimal if it is small.
pub(super) fn rate(number: f64) -> String {
    match number {
        few if few > 0.0 && few < 9.95 => format!("{few:.1}/s"),
        number => format!("{}/s", grouped(number.round() as u64)),
    }
}

/// Cuts text to the columns that it may take, with `…` where something is missing.
pub(super) fn fit(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if columns(&kept) > width.saturating_sub(1) {
            kept.pop();
            break;
        }
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// The columns that text takes on a terminal.
pub(super) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_rates_a_unit() {
        let shown = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.25, 12.4, 1999.6].map(rate),
            ["0/s", "0.2/s", "12/s", "2,000/s"]
        );
    }

    #[test]
    fn text_is_cut_by_columns_and_not_by_characters() {
        assert_eq!(fit("alice", 5), "alice");
        assert_eq!(fit("alice", 4), "ali…");
        assert_eq!(fit("漢字かな", 5), "漢字…");
        assert_eq!(fit("alice", 0), "");
    }
}
