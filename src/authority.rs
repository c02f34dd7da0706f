//! The host and port that a stream asks for, and the patterns of routes for them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::pattern::{Case, Pattern, Wildcard};

/// The host and port of a CONNECT request, in lower case, as in `db.example:5432` or `[2001:db8::1]:443`.
///
/// Nothing is ever dialled because of it: a route chooses the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority(Box<str>);

impl Authority {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Authority {
    type Err = ParseAuthorityError;

    /// Takes a name, an IPv4 address, or an IPv6 address in brackets, and a port from 1 to 65535 (RFC 9113 §8.5,
    /// RFC 3986 §3.2). There is no user information.
    fn from_str(text: &str) -> Result<Self, ParseAuthorityError> {
        let (host, port) = split(text).ok_or(ParseAuthorityError)?;
        let is_host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => host.len() <= LONGEST_NAME && labels(host).all(is_label),
        };
        let is_port = port.bytes().all(|it| it.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0);
        match is_host && is_port {
            true => Ok(Self(text.to_ascii_lowercase().into())),
            false => Err(ParseAuthorityError),
        }
    }
}

/// The host of an IPv6 address has colons of its own.
fn split(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_open = host.starts_with('[') == host.ends_with(']')
        && (host.starts_with('[') || !host.contains(':'));
    is_open.then_some((host, port))
}

fn labels(host: &str) -> impl DoubleEndedIterator<Item = &str> {
    host.strip_suffix('.').unwrap_or(host).split('.')
}

fn is_label(label: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    !label.is_empty() && label.bytes().all(is_plain)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host and a port, as in db.example:5432")]
pub(crate) struct ParseAuthorityError;

/// A host and a port, in which `*` stands for one label of the host or for any port, and `**` for one or more
/// labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityPattern {
    host: Host,
    /// `None` is any port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(Pattern),
    Address(Ipv6Addr),
}

impl AuthorityPattern {
    pub(crate) fn matches(&self, authority: &str) -> bool {
        let Some((host, port)) = split(authority) else {
            return false;
        };
        let is_host = match (&self.host, host.strip_prefix('[')) {
            (Host::Name(pattern), None) => {
                pattern.matches(labels(host), Case::Ignored, Wildcard::Real)
            }
            (Host::Address(address), Some(host)) => {
                host.strip_suffix(']').and_then(|it| it.parse().ok()) == Some(*address)
            }
            (Host::Name(_), Some(_)) | (Host::Address(_), None) => false,
        };
        is_host && self.port.is_none_or(|it| port.parse() == Ok(it))
    }
}

impl FromStr for AuthorityPattern {
    type Err = ParseAuthorityPatternError;

    fn from_str(text: &str) -> Result<Self, ParseAuthorityPatternError> {
        let (host, port) = split(text).ok_or(ParseAuthorityPatternError)?;
        let port = match port {
            "*" => None,
            port => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(ParseAuthorityPatternError),
            },
        };
        let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(address) => {
                Host::Address(address.parse().map_err(|_| ParseAuthorityPatternError)?)
            }
            None => {
                let is_part = |it: &str| matches!(it, "*" | "**") || is_label(it);
                // All numbers: an address, where a star would be a network.
                let is_address = host.parse::<Ipv4Addr>().is_ok();
                if !is_address && !labels(host).all(is_part) {
                    return Err(ParseAuthorityPatternError);
                }
                let host = host.to_ascii_lowercase();
                Host::Name(Pattern::new(labels(&host)).map_err(|_| ParseAuthorityPatternError)?)
            }
        };
        Ok(Self { host, port })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host and a port; write for example `db:5432` or `*.svc.example:*`: `*` is one label or any port, \
     `**` (once) is one or more labels"
)]
pub(crate) struct ParseAuthorityPatternError;

/// RFC 1035 §2.3.4.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for text in [
            "db:5432",
            "DB.example:1",
            "db.example.:65535",
            "127.0.0.1:80",
            "[2001:db8::1]:443",
            "_srv.x-y:9",
        ] {
            let authority: Authority = text.parse().expect(text);
            assert_eq!(authority.as_str(), text.to_ascii_lowercase());
        }
        for text in [
            "",
            "db",
            "db:",
            ":80",
            "db:0",
            "db:65536",
            "db:+80",
            "db:80:90",
            "2001:db8::1:443",
            "[2001:db8::1]",
            "[db]:80",
            "[::1:80",
            "::1]:80",
            "a..b:80",
            "user@db:80",
            "db/x:80",
            "d b:80",
            "é:80",
            "*.b:80",
        ] {
            assert_eq!(
                text.parse::<Authority>(),
                Err(ParseAuthorityError),
                "{text}"
            );
        }
        let long = format!("{}:80", "a".repeat(256));
        assert_eq!(long.parse::<Authority>(), Err(ParseAuthorityError));
    }

    #[test]
    fn a_pattern_matches_host_and_port() {
        for (pattern, authority, expected) in [
            ("db:5432", "db:5432", true),
            ("DB:5432", "db:5432", true),
            ("db:5432", "db.:5432", true),
            ("db:5432", "db:5433", false),
            ("db:*", "db:1", true),
            ("*:*", "db:1", true),
            ("*:*", "a.b:1", false),
            ("**:*", "a.b:1", true),
            ("*.svc.example:*", "a.svc.example:80", true),
            ("*.svc.example:*", "a.b.svc.example:80", false),
            ("*.svc.example:80", "a.svc.example:81", false),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("[2001:db8::1]:443", "[2001:db8:0::1]:443", true),
            ("[2001:db8::1]:443", "[2001:db8::2]:443", false),
            ("**:*", "[2001:db8::2]:443", false),
        ] {
            let pattern: AuthorityPattern = pattern.parse().expect(pattern);
            assert_eq!(
                pattern.matches(authority),
                expected,
                "{pattern:?} {authority}"
            );
        }
        for text in [
            "", "db", "db:", "db:0", "a..b:1", "**.**:1", "[x]:1", "a:b:1", "x*:1",
        ] {
            assert_eq!(
                text.parse::<AuthorityPattern>(),
                Err(ParseAuthorityPatternError),
                "{text}"
            );
        }
    }
}
