//! Text of others, as it may be printed on a terminal.

/// Keys, paths and names in certificates may hold line breaks, escape sequences and what turns the
/// direction of a text; what is printed is one line on a terminal.
pub fn line(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() || is_format(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Unseen, and changes what is seen: separators, marks and embeddings of a direction.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// As [`line`], of several lines.
pub fn lines(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(line).collect();
    lines.join("\n")
}
