//! Makes text from others safe to print on a terminal.

/// Makes one safe line: keys, paths and names in certificates may contain line breaks, escape
/// sequences, and characters that change the direction of text.
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

/// Invisible characters that change how other text looks: separators, and marks for the direction
/// of text.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Like [`line`], for text of several lines.
pub fn lines(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(line).collect();
    lines.join("\n")
}
