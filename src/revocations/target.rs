//! What a revocation is about: a name in certificates, a pattern of names, or a serial number.

use std::borrow::Cow;

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::identity::{Identity, ParseRuleError, Rule};
use crate::tls::identity::serial;

/// The clients that a revocation is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// In one form, so that a target is revoked once, however it is written.
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// One name, without wildcards.
    Name,
    /// Names with wildcards.
    Pattern(Rule),
    /// The serial number of a certificate, from any authority.
    Serial,
}

impl Target {
    /// # Errors
    ///
    /// The text is no identity.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > LONGEST {
            return Err(TargetError::Long);
        }
        if text.contains(char::is_control) {
            return Err(TargetError::Control);
        }
        if let Some(digits) = text.strip_prefix("serial:") {
            return Ok(Self {
                text: format!("serial:{}", number(digits)?).into(),
                kind: Kind::Serial,
            });
        }
        let rule: Rule = text.parse().map_err(|error| match error {
            ParseRuleError::Kind => TargetError::Kind,
            error => TargetError::Rule(error),
        })?;
        Ok(Self {
            text: rule.normal().into(),
            kind: match rule.is_exact() {
                true => Kind::Name,
                false => Kind::Pattern(rule),
            },
        })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The name by which the ledger finds all of these clients. DNS names are compared without case,
    /// which its index does not do.
    pub(super) fn indexed(&self) -> Option<&str> {
        let is_indexed = matches!(self.kind, Kind::Name) && !self.text.starts_with(DNS);
        is_indexed.then_some(&self.text)
    }

    /// Whether it is about a client with this identity and certificate chain.
    pub(super) fn is_about(&self, identity: &Identity, chain: &[CertificateDer<'_>]) -> bool {
        match &self.kind {
            Kind::Name => identity.names().any(|name| *normal(&name) == *self.text),
            Kind::Pattern(rule) => rule.turns_away(identity),
            Kind::Serial => serial_of(chain).is_some_and(|serial| *serial == *self.text),
        }
    }
}

/// A name of an identity, in the form of [`Target::text`].
pub(super) fn normal(name: &str) -> Cow<'_, str> {
    match name.starts_with(DNS) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// The serial number of a client's own certificate, in the form of [`Target::text`].
pub(super) fn serial_of(chain: &[CertificateDer<'_>]) -> Option<String> {
    Some(format!("serial:{}", serial(chain.first()?)?))
}

/// A serial number in hexadecimal, with or without colons and leading zeros. `openssl x509 -serial` prints
/// none, `openssl x509 -text` colons.
fn number(text: &str) -> Result<String, TargetError> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let is_good = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    let digits = digits.to_ascii_lowercase();
    match digits.trim_start_matches('0') {
        _ if !is_good => Err(TargetError::Serial),
        number if number.len() > LONGEST_SERIAL => Err(TargetError::Serial),
        "" => Ok("0".into()),
        number => Ok(number.into()),
    }
}

/// Why a text is no identity that can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(
        "an identity starts with `uri:`, `dns:`, `cn:`, `ou:`, `sha256:` or `serial:`, as in `cn:alice`"
    )]
    Kind,
    #[error("a serial number has 1 to 40 hexadecimal digits, with or without colons")]
    Serial,
    #[error("an identity has at most {LONGEST} bytes")]
    Long,
    #[error("an identity has no control characters")]
    Control,
    #[error(transparent)]
    Rule(ParseRuleError),
}

const DNS: &str = "dns:";

/// Above the names of real certificates.
const LONGEST: usize = 1024;
/// RFC 5280 §4.1.2.2: 20 octets at most.
const LONGEST_SERIAL: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_form_however_it_is_written() {
        let colons = vec!["AB"; 32].join(":");
        for (text, expected) in [
            ("cn:Alice", "cn:Alice"),
            ("dns:*.Corp.Example", "dns:*.corp.example"),
            ("uri:spiffe://corp/ns/**", "uri:spiffe://corp/ns/**"),
            ("serial:00:AB:0c", "serial:ab0c"),
            ("serial:000", "serial:0"),
            (
                &format!("sha256:{colons}"),
                &format!("sha256:{}", "ab".repeat(32)),
            ),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.text(), expected);
            let again = Target::parse(expected).expect(expected);
            assert_eq!(again.text(), expected);
        }
    }

    #[test]
    fn what_is_no_identity_is_refused_with_the_reason() {
        let long = format!("cn:{}", "a".repeat(LONGEST - 2));
        for (text, expected) in [
            ("", TargetError::Kind),
            ("alice", TargetError::Kind),
            ("serial", TargetError::Kind),
            ("serial:", TargetError::Serial),
            ("serial:xyz", TargetError::Serial),
            (&format!("serial:{}", "1".repeat(41)), TargetError::Serial),
            ("cn:a\nb", TargetError::Control),
            (&long, TargetError::Long),
            ("cn:", TargetError::Rule(ParseRuleError::Empty)),
            ("sha256:ab", TargetError::Rule(ParseRuleError::Digest)),
        ] {
            assert_eq!(Target::parse(text).err(), Some(expected), "{text}");
        }
        assert!(Target::parse(&long[..LONGEST]).is_ok());
        assert!(Target::parse(&format!("serial:{}", "1".repeat(40))).is_ok());
    }

    #[test]
    fn a_target_is_about_clients_with_a_matching_name() {
        let identity = Identity {
            dns: vec!["Web.corp.example".into()],
            cn: Some("alice".into()),
            sha256: "ab".repeat(32),
            ..Identity::default()
        };
        for (text, expected) in [
            ("cn:alice", true),
            ("cn:Alice", false),
            ("cn:*", true),
            ("dns:web.CORP.example", true),
            ("dns:*.corp.example", true),
            ("dns:corp.example", false),
            ("ou:alice", false),
            ("serial:1", false),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.is_about(&identity, &[]), expected, "{text}");
        }
    }
}
