//! Verified identities of peers, and rules that match them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::pattern::{Case, Pattern, Wildcard};

/// The identity of a peer, from its verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Identity {
    /// The URI subject alternative names (RFC 5280 §4.2.1.6). A SPIFFE id is one of these.
    pub uri: Vec<String>,
    /// The DNS subject alternative names (RFC 5280 §4.2.1.6).
    pub dns: Vec<String>,
    /// The subject's common name.
    pub cn: Option<String>,
    /// The subject's organizational units.
    pub ou: Vec<String>,
    /// The SHA-256 digest of the certificate in DER, as 64 lowercase hexadecimal digits.
    pub sha256: String,
}

impl Identity {
    /// An identity with this one name, for example `cn:alice`; `None` if the text has no known
    /// prefix.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut identity = Self::default();
        let (kind, name) = name.split_once(':')?;
        let name = name.to_owned();
        match kind {
            "uri" => identity.uri.push(name),
            "dns" => identity.dns.push(name),
            "cn" => identity.cn = Some(name),
            "ou" => identity.ou.push(name),
            "sha256" => identity.sha256 = digest(&name).ok()?,
            _ => return None,
        }
        Some(identity)
    }

    /// All its names in the form of rules: `uri:…`, `dns:…`, `cn:…`, `ou:…` and `sha256:…`.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let kinds = [
            ("uri", self.uri.as_slice()),
            ("dns", self.dns.as_slice()),
            ("cn", self.cn.as_slice()),
            ("ou", self.ou.as_slice()),
            ("sha256", std::slice::from_ref(&self.sha256)),
        ];
        let kinds = kinds.into_iter();
        kinds.flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}:{name}")))
    }

    /// Whether one of [`Self::names`] equals `name`.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }

    /// Whether it has no name except the digest of its certificate.
    pub(crate) fn is_nameless(&self) -> bool {
        self.uri.is_empty() && self.dns.is_empty() && self.cn.is_none() && self.ou.is_empty()
    }
}

impl fmt::Display for Identity {
    /// Its most specific name, in the form of a rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uri.first(), self.dns.first(), &self.cn) {
            (Some(uri), _, _) => write!(f, "uri:{uri}"),
            (None, Some(dns), _) => write!(f, "dns:{dns}"),
            (None, None, Some(cn)) => write!(f, "cn:{cn}"),
            (None, None, None) => write!(f, "sha256:{}", self.sha256),
        }
    }
}

/// One rule about identities, for example `uri:spiffe://corp/ns/*/sa/web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    kind: Kind,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The part before the path, and the segments of the path.
    Uri(String, Pattern),
    Dns(Pattern),
    Cn(Pattern),
    Ou(Pattern),
    Sha256(String),
}

impl Rule {
    /// Whether the rule matches, for a list of identities that are allowed.
    pub(crate) fn admits(&self, identity: &Identity) -> bool {
        self.names(identity, Wildcard::Real)
    }

    /// Whether the rule matches, for a list of identities that are denied. Here wildcards also
    /// match parts that [`Self::admits`] does not accept, such as empty ones.
    pub(crate) fn turns_away(&self, identity: &Identity) -> bool {
        self.names(identity, Wildcard::Any)
    }

    /// Its text in one form: rules with the same text match the same identities.
    pub(crate) fn normal(&self) -> String {
        match &self.kind {
            Kind::Dns(_) => self.text.to_ascii_lowercase(),
            Kind::Sha256(digest) => format!("sha256:{digest}"),
            Kind::Uri(..) | Kind::Cn(_) | Kind::Ou(_) => self.text.clone(),
        }
    }

    /// Whether it matches a single name: it has no wildcards.
    pub(crate) fn is_exact(&self) -> bool {
        match &self.kind {
            Kind::Uri(_, pattern) | Kind::Dns(pattern) | Kind::Cn(pattern) | Kind::Ou(pattern) => {
                pattern.is_exact()
            }
            Kind::Sha256(_) => true,
        }
    }

    fn names(&self, identity: &Identity, wildcard: Wildcard) -> bool {
        let labels =
            |pattern: &Pattern, name: &str, case| pattern.matches(name.split('.'), case, wildcard);
        match &self.kind {
            Kind::Uri(origin, path) => identity.uri.iter().any(|uri| {
                uri.strip_prefix(origin.as_str())
                    .is_some_and(|rest| path.matches(rest.split('/'), Case::Matters, wildcard))
            }),
            Kind::Dns(pattern) => identity
                .dns
                .iter()
                .any(|name| labels(pattern, name, Case::Ignored)),
            Kind::Cn(pattern) => identity
                .cn
                .iter()
                .any(|name| labels(pattern, name, Case::Matters)),
            Kind::Ou(pattern) => identity
                .ou
                .iter()
                .any(|name| labels(pattern, name, Case::Matters)),
            Kind::Sha256(digest) => identity.sha256 == *digest,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let (kind, rest) = text.split_once(':').ok_or(ParseRuleError::Kind)?;
        if rest.is_empty() {
            return Err(ParseRuleError::Empty);
        }
        let name = || Pattern::new(rest.split('.')).map_err(|_| ParseRuleError::Ambiguous);
        let kind = match kind {
            "uri" => uri(rest)?,
            "dns" if rest.split('.').any(|label| !is_label(label)) => {
                return Err(ParseRuleError::Dns);
            }
            "dns" => Kind::Dns(name()?),
            "cn" => Kind::Cn(name()?),
            "ou" => Kind::Ou(name()?),
            "sha256" => Kind::Sha256(digest(rest)?),
            _ => return Err(ParseRuleError::Kind),
        };
        Ok(Self {
            kind,
            text: text.to_owned(),
        })
    }
}

/// Wildcards are allowed only in the path: a wildcard before it would match names that anybody can
/// obtain.
fn uri(text: &str) -> Result<Kind, ParseRuleError> {
    let (scheme, rest) = text.split_once(':').ok_or(ParseRuleError::Uri)?;
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.find('/').map_or("", |at| &authority[at..]),
        None => rest,
    };
    let origin = &text[..text.len() - path.len()];
    if scheme.is_empty() || origin.contains('*') {
        return Err(ParseRuleError::Uri);
    }
    let is_whole = |segment: &str| !segment.contains('*') || matches!(segment, "*" | "**");
    if !path.split('/').all(is_whole) {
        return Err(ParseRuleError::Part);
    }
    let pattern = Pattern::new(path.split('/')).map_err(|_| ParseRuleError::Ambiguous)?;
    Ok(Kind::Uri(origin.to_owned(), pattern))
}

/// A digest in hexadecimal, with or without colons. `openssl x509 -fingerprint` prints colons.
fn digest(text: &str) -> Result<String, ParseRuleError> {
    let digits: String = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    match digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => Err(ParseRuleError::Digest),
    }
}

fn is_label(label: &str) -> bool {
    matches!(label, "*" | "**")
        || (!label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
}

/// Why the text of a rule is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseRuleError {
    #[error("an identity rule must start with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`")]
    Kind,
    #[error("the name after the colon is missing")]
    Empty,
    #[error(
        "not a URI, or it has a wildcard before its path; write it as in \
     `uri:spiffe://corp/ns/*/sa/web`"
    )]
    Uri,
    #[error("`*` and `**` must be whole segments, as in `uri:spiffe://corp/ns/*/sa/web`")]
    Part,
    #[error("not a DNS name; `*` must be a whole label, as in `dns:*.corp.example`")]
    Dns,
    #[error("`**` may occur only once in a pattern")]
    Ambiguous,
    #[error("a SHA-256 must have 64 hexadecimal digits, with or without colons")]
    Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().expect("a rule")
    }

    fn alice() -> Identity {
        Identity {
            uri: vec!["spiffe://corp/ns/prod/sa/web".into()],
            dns: vec!["Web.corp.example".into()],
            cn: Some("alice".into()),
            ou: vec!["ops".into(), "dev".into()],
            sha256: "ab".repeat(32),
        }
    }

    #[test]
    fn a_rule_admits_identities_with_a_matching_name() {
        for (text, expected) in [
            ("uri:spiffe://corp/ns/prod/sa/web", true),
            ("uri:spiffe://corp/ns/*/sa/web", true),
            ("uri:spiffe://corp/**", true),
            ("uri:spiffe://corp/ns/**/web", true),
            ("uri:spiffe://corp/ns/*/web", false),
            ("uri:spiffe://corp/ns/*/sa", false),
            ("uri:spiffe://corp/ns/*/sa/web/*", false),
            ("uri:spiffe://cor/ns/*/sa/web", false),
            ("uri:spiffe://corp", false),
            ("uri:spiffe://Corp/ns/*/sa/web", false),
            ("dns:web.corp.example", true),
            ("dns:*.corp.example", true),
            ("dns:*.example", false),
            ("dns:**.example", true),
            ("cn:alice", true),
            ("cn:Alice", false),
            ("cn:ali", false),
            ("ou:dev", true),
            ("ou:sales", false),
        ] {
            assert_eq!(rule(text).admits(&alice()), expected, "{text}");
        }
        let colons = vec!["AB"; 32].join(":");
        assert!(rule(&format!("sha256:{colons}")).admits(&alice()));
        assert!(!rule(&format!("sha256:{}", "ac".repeat(32))).admits(&alice()));
    }

    #[test]
    fn an_empty_or_dot_segment_is_never_allowed_and_does_not_evade_a_denial() {
        for path in ["ns//sa/web", "ns/./sa/web", "ns/../sa/web"] {
            let identity = Identity {
                uri: vec![format!("spiffe://corp/{path}")],
                ..Identity::default()
            };
            for text in [
                "uri:spiffe://corp/ns/*/sa/web",
                "uri:spiffe://corp/**",
                "uri:spiffe://corp/ns/**/web",
            ] {
                assert!(!rule(text).admits(&identity), "{text} {path}");
                assert!(rule(text).turns_away(&identity), "{text} {path}");
            }
        }
    }

    #[test]
    fn a_rule_does_not_admit_identities_without_the_name() {
        for text in ["uri:a:**", "dns:**", "cn:**", "ou:**"] {
            assert!(!rule(text).admits(&Identity::default()), "{text}");
        }
    }

    #[test]
    fn an_invalid_rule_is_refused_with_the_reason() {
        for (text, expected) in [
            ("", ParseRuleError::Kind),
            ("alice", ParseRuleError::Kind),
            ("CN:alice", ParseRuleError::Kind),
            ("email:a@b", ParseRuleError::Kind),
            ("cn:", ParseRuleError::Empty),
            ("uri:spiffe", ParseRuleError::Uri),
            ("uri:spiffe://*/ns", ParseRuleError::Uri),
            ("uri:*://corp/ns", ParseRuleError::Uri),
            ("uri:spiffe://corp/ns/web*", ParseRuleError::Part),
            ("uri:spiffe://corp/**/a/**", ParseRuleError::Ambiguous),
            ("dns:*a.example", ParseRuleError::Dns),
            ("dns:a..example", ParseRuleError::Dns),
            ("dns:**.**", ParseRuleError::Ambiguous),
            ("sha256:ab12", ParseRuleError::Digest),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(expected), "{text}");
        }
    }
}
