//! Finds text between blocks that looks like a damaged block. Ignoring it could leave out a
//! certificate or a revocation list.

/// What a suspicious line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gap {
    #[error(
        "looks like the begin or end of a block but is not; write five dashes, as in `-----BEGIN \
         CERTIFICATE-----`"
    )]
    Armour,
    #[error("has base64 outside of a block; its -----BEGIN line is missing")]
    Base64,
    #[error(
        "has DER beside PEM; convert it with `openssl x509 -inform DER` or `openssl crl -inform DER`"
    )]
    Der,
}

/// The position of the first suspicious line in `gap`, and what it looks like.
pub(super) fn suspicious(gap: &str) -> Option<(usize, Gap)> {
    let mut at = 0;
    for line in gap.split('\n') {
        if let Some(what) = of_line(line) {
            return Some((at, what));
        }
        at += line.len() + 1;
    }
    None
}

fn of_line(line: &str) -> Option<Gap> {
    let text = line.trim();
    // Names may have any encoding, and may even contain an escape sequence.
    let is_binary = |it: char| matches!(it, '\0'..='\u{8}' | '\u{e}'..='\u{1a}');
    if text.contains(is_binary) {
        return Some(Gap::Der);
    }
    let is_dash = |it: char| matches!(it, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}');
    if text.starts_with(is_dash) && (text.contains("BEGIN") || text.contains("END ")) {
        return Some(Gap::Armour);
    }
    let body = text.trim_end_matches('=');
    let is_base64 = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/');
    // A fingerprint may stand alone in a line.
    let is_hexadecimal = body.bytes().all(|it| it.is_ascii_hexdigit());
    let is_body = body.len() >= LINE && body.bytes().all(is_base64) && !is_hexadecimal;
    is_body.then_some(Gap::Base64)
}

/// Base64 lines have 64 or 76 characters, and only the last of a block is shorter.
const LINE: usize = 60;
