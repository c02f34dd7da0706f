//! DNS name patterns, as in routes and certificates.

use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::pattern::{Case, Pattern, Wildcard};

/// A DNS name in which `*` stands for exactly one label and `**` for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern {
    pattern: Pattern,
    text: String,
}

impl NamePattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels = name.split('.');
        self.pattern.matches(labels, Case::Ignored, Wildcard::Real)
    }

    /// The one name that the pattern matches, in lower case; `None` if it has wildcards.
    pub(crate) fn exact(&self) -> Option<&str> {
        self.pattern.is_exact().then_some(self.text.as_str())
    }
}

impl FromStr for NamePattern {
    type Err = ParseNamePatternError;

    fn from_str(text: &str) -> Result<Self, ParseNamePatternError> {
        let text = text.to_ascii_lowercase();
        let is_label = |label: &str| {
            matches!(label, "*" | "**")
                || (!label.is_empty()
                    && label
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        };
        // An IP address is not allowed as a server name (RFC 6066 §3).
        if !text.split('.').all(is_label) || text.parse::<Ipv4Addr>().is_ok() {
            return Err(ParseNamePatternError);
        }
        let pattern = Pattern::new(text.split('.')).map_err(|_| ParseNamePatternError)?;
        Ok(Self { pattern, text })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a name pattern; write a DNS name (no address), as in `*.example.com`: `*` is one label, \
     `**` (once) is one or more"
)]
pub(crate) struct ParseNamePatternError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_exactly_one_label_and_two_are_one_or_more() {
        for (text, name, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("EXAMPLE.com", "example.com", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("**.example.com", "a.example.com", true),
            ("**.example.com", "a.b.c.example.com", true),
            ("**.example.com", "example.com", false),
            ("**.example.com", "a..example.com", false),
            ("a.*.com", "a.b.com", true),
            ("a.**", "a", false),
            ("a.**", "a.b.c", true),
            ("a.**.b.*", "a.x.y.b.z", true),
            ("a.**.a", "a", false),
            ("a.**.a", "a.a", false),
            ("*", "", false),
        ] {
            let pattern: NamePattern = text.parse().expect("a pattern");
            assert_eq!(pattern.matches(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "*a.com",
            "a b",
            "**.**",
            "ex*mple.com",
            "é.com",
            "127.0.0.1",
        ] {
            assert_eq!(
                text.parse::<NamePattern>(),
                Err(ParseNamePatternError),
                "{text}"
            );
        }
    }
}
