//! What a client has asked for in its hello, in words for the log: only when nobody here has it.

use std::fmt::Write;

use crate::tls::{Alpn, Hello};

/// The server name and the protocols of a client, and the protocols of the listener.
pub(super) fn asked_for(hello: &Hello<'_>, ours: &Alpn) -> Box<str> {
    let ours = ours.names().iter().map(String::as_bytes);
    words(hello.server_name(), &hello.protocols(), ours).into()
}

fn words<'a>(
    name: Option<&str>,
    theirs: &[&[u8]],
    ours: impl ExactSizeIterator<Item = &'a [u8]>,
) -> String {
    let mut text = match name {
        Some(name) => format!("the client asks for the server name {name:?}"),
        None => "the client sends no server name (SNI)".into(),
    };
    if !theirs.is_empty() {
        let (offered, here) = (list(theirs.iter().copied()), list(ours));
        // Writing to a String cannot fail.
        let _ = write!(text, " and offers {offered}; the listener has {here}");
    }
    text
}

/// The first few, without characters that could forge a line.
fn list<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> String {
    let more = names.len().saturating_sub(MOST);
    let few = names.take(MOST);
    let few: Vec<String> = few
        .map(|it| it[..it.len().min(LONGEST)].escape_ascii().to_string())
        .collect();
    match (few.is_empty(), more) {
        (true, _) => "no protocol".into(),
        (false, 0) => few.join(", "),
        (false, more) => format!("{} and {more} more", few.join(", ")),
    }
}

/// A client may offer thousands.
const MOST: usize = 5;
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_asks_for_is_named_within_bounds() {
        let ours = || [&b"h2"[..]].into_iter();
        assert_eq!(
            words(Some("a.example"), &[b"h3", b"x\n\x1b"], ours()),
            r#"the client asks for the server name "a.example" and offers h3, x\n\x1b; the listener has h2"#
        );
        assert_eq!(
            words(None, &[b"h3"], [].into_iter()),
            "the client sends no server name (SNI) and offers h3; the listener has no protocol"
        );
        assert_eq!(
            words(Some("a"), &[], ours()),
            "the client asks for the server name \"a\""
        );
        let long = [7; 255];
        let text = words(None, &[&long[..]; 1000], ours());
        assert!(text.contains("and 995 more") && text.len() < 1000, "{text}");
    }
}
