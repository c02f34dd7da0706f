//! Which backend a connection goes to: the first rule that matches.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The rules, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Vec<Rule>);

/// One rule: every key that is given must match, and a list matches with any of its entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub listener: Vec<String>,
    pub sni: Vec<NamePattern>,
    pub alpn: Vec<String>,
    pub from: Vec<IpNet>,
    pub action: Action,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Deny,
    Backend(String),
}

/// What the rules are asked about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Query<'a> {
    pub listener: &'a str,
    pub sni: Option<&'a str>,
    pub alpn: Option<&'a str>,
    pub peer: Option<IpAddr>,
}

/// Why a connection goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoRoute,
    Denied,
}

impl Routes {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The name of the backend of the first rule that matches.
    pub(crate) fn choose(&self, query: &Query<'_>) -> Result<&str, Refusal> {
        match self
            .0
            .iter()
            .find(|rule| rule.matches(query))
            .map(|rule| &rule.action)
        {
            Some(Action::Backend(name)) => Ok(name),
            Some(Action::Deny) => Err(Refusal::Denied),
            None => Err(Refusal::NoRoute),
        }
    }

    /// The application protocols that rules for `listener` name, in the order of the rules.
    pub(crate) fn protocols(&self, listener: &str) -> Vec<String> {
        let mut protocols = Vec::new();
        for rule in self
            .0
            .iter()
            .filter(|rule| any(&rule.listener, |name| name == listener))
        {
            for protocol in &rule.alpn {
                if !protocols.contains(protocol) {
                    protocols.push(protocol.clone());
                }
            }
        }
        protocols
    }
}

impl Rule {
    fn matches(&self, query: &Query<'_>) -> bool {
        any(&self.listener, |name| name == query.listener)
            && any(&self.sni, |pattern| {
                query.sni.is_some_and(|name| pattern.matches(name))
            })
            && any(&self.alpn, |protocol| query.alpn == Some(protocol))
            && any(&self.from, |network| {
                query.peer.is_some_and(|ip| network.contains(&ip))
            })
    }
}

/// A key that is not given matches everything.
fn any<T>(list: &[T], matches: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

/// A DNS name in which `*` stands for exactly one label and `**` for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern(Vec<Label>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    Exact(String),
    One,
    OneOrMore,
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels: Vec<&str> = name.split('.').collect();
        matches(&self.0, &labels)
    }
}

fn matches(pattern: &[Label], labels: &[&str]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return labels.is_empty();
    };
    match first {
        Label::OneOrMore => (1..=labels.len()).any(|taken| matches(rest, &labels[taken..])),
        Label::One => !labels.is_empty() && matches(rest, &labels[1..]),
        Label::Exact(label) => {
            labels
                .first()
                .is_some_and(|first| first.eq_ignore_ascii_case(label))
                && matches(rest, &labels[1..])
        }
    }
}

impl FromStr for NamePattern {
    type Err = ParseNamePatternError;

    fn from_str(text: &str) -> Result<Self, ParseNamePatternError> {
        let valid = |label: &str| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        };
        text.split('.')
            .map(|label| match label {
                "*" => Ok(Label::One),
                "**" => Ok(Label::OneOrMore),
                label if valid(label) => Ok(Label::Exact(label.to_owned())),
                _ => Err(ParseNamePatternError),
            })
            .collect::<Result<_, _>>()
            .and_then(|labels: Vec<Label>| {
                // More would make a match take exponential time for a name that the peer chose.
                let wild = labels
                    .iter()
                    .filter(|label| **label == Label::OneOrMore)
                    .count();
                if wild > 1 {
                    Err(ParseNamePatternError)
                } else {
                    Ok(Self(labels))
                }
            })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a name pattern; it is a DNS name in which `*` may stand for one label and, once, `**` for \
     one or more, as in `*.example.com`"
)]
pub(crate) struct ParseNamePatternError;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_star_is_exactly_one_label_and_two_are_one_or_more() {
        for (text, name, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("**.example.com", "a.example.com", true),
            ("**.example.com", "a.b.c.example.com", true),
            ("**.example.com", "example.com", false),
            ("a.*.com", "a.b.com", true),
            ("a.**", "a", false),
            ("a.**", "a.b.c", true),
            ("*", "", true),
        ] {
            assert_eq!(pattern(text).matches(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "*a.com",
            "a b",
            "**.**",
            "ex*mple.com",
            "é.com",
        ] {
            assert_eq!(
                text.parse::<NamePattern>(),
                Err(ParseNamePatternError),
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_rule_of_which_every_key_matches_wins() {
        let to = |name: &str| Action::Backend(name.into());
        let routes = Routes::new(vec![
            Rule {
                from: vec!["192.0.2.0/24".parse().expect("a network")],
                ..Rule::default()
            },
            Rule {
                listener: vec!["https".into()],
                sni: vec![pattern("a.example"), pattern("*.b.example")],
                alpn: vec!["h2".into(), "http/1.1".into()],
                action: to("web"),
                ..Rule::default()
            },
            Rule {
                listener: vec!["https".into()],
                action: to("rest"),
                ..Rule::default()
            },
        ]);
        let ask = |listener, sni, alpn, peer: Option<&str>| {
            let peer = peer.map(|ip| ip.parse().expect("an IP address"));
            routes
                .choose(&Query {
                    listener,
                    sni,
                    alpn,
                    peer,
                })
                .map(str::to_owned)
        };
        assert_eq!(
            ask("https", Some("x.b.example"), Some("h2"), None),
            Ok("web".into())
        );
        assert_eq!(
            ask("https", Some("a.example"), None, None),
            Ok("rest".into())
        );
        assert_eq!(ask("https", None, Some("h2"), None), Ok("rest".into()));
        assert_eq!(
            ask("https", None, None, Some("192.0.2.9")),
            Err(Refusal::Denied)
        );
        assert_eq!(
            ask("other", None, None, Some("198.51.100.1")),
            Err(Refusal::NoRoute)
        );
        assert_eq!(routes.protocols("https"), ["h2", "http/1.1"]);
        assert!(routes.protocols("other").is_empty());
    }
}
