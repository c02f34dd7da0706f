//! Reads the identity in a certificate. It may be trusted only after the certificate is verified.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::asn1_rs::{BmpString, Tag, UniversalString};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::identity::Identity;

/// The names in a certificate in DER.
///
/// # Errors
///
/// A certificate that cannot be read completely has no identity: a rule may deny the name that is
/// missing.
pub(crate) fn identity(certificate: &[u8]) -> Result<Identity, BadCertificate> {
    let Ok((&[], parsed)) = X509Certificate::from_der(certificate) else {
        return Err(BadCertificate::Unreadable);
    };
    let mut identity = Identity {
        sha256: hexadecimal(digest(&SHA256, certificate).as_ref()),
        ..Identity::default()
    };
    let subject = parsed.subject();
    // The most specific name comes last; directories put `CN=Users` before it (RFC 4514 §2.1).
    identity.cn = subject.iter_common_name().last().map(text).transpose()?;
    identity.ou = subject
        .iter_organizational_unit()
        .map(text)
        .collect::<Result<_, _>>()?;
    let alternatives = parsed
        .subject_alternative_name()
        .map_err(|_| BadCertificate::Unreadable)?;
    for name in alternatives.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::URI(uri) => identity.uri.push(printable(uri)?),
            GeneralName::DNSName(dns) => identity.dns.push(printable(dns)?),
            GeneralName::Invalid(..) => return Err(BadCertificate::Name),
            _ => {}
        }
    }
    Ok(identity)
}

/// The serial number of a certificate in DER: lowercase hexadecimal digits without leading zeros, as in
/// `serial:` of a revocation.
pub(crate) fn serial(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digits = hexadecimal(parsed.raw_serial());
    match digits.trim_start_matches('0') {
        "" => Some("0".into()),
        digits => Some(digits.into()),
    }
}

/// Why a certificate has no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCertificate {
    #[error("cannot parse the certificate")]
    Unreadable,
    #[error("a name in the certificate has control characters or an unknown encoding")]
    Name,
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, BadCertificate> {
    printable(&decoded(attribute).ok_or(BadCertificate::Name)?)
}

/// Decodes all string types that a name may have (RFC 5280 §4.1.2.4): old authorities use all of
/// them.
pub(super) fn decoded(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    match value.tag() {
        Tag::BmpString => BmpString::try_from(value).ok().map(|it| it.string()),
        Tag::UniversalString => UniversalString::try_from(value).ok().map(|it| it.string()),
        // Latin-1, which is what authorities write and OpenSSL reads.
        Tag::T61String => Some(value.data.iter().copied().map(char::from).collect()),
        _ => attribute.as_str().ok().map(str::to_owned),
    }
}

/// Names get into logs, environment variables and headers, where a NUL or a line break would change
/// them.
fn printable(name: &str) -> Result<String, BadCertificate> {
    match name.contains(char::is_control) {
        true => Err(BadCertificate::Name),
        false => Ok(name.to_owned()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use rcgen::string::{BmpString, TeletexString, UniversalString};
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate<N>(subject: &[(DnType, N)], alternatives: Vec<SanType>) -> Vec<u8>
    where
        N: Clone + Into<DnValue>,
    {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in subject {
            params.distinguished_name.push(kind.clone(), name.clone());
        }
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        certificate.der().to_vec()
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().expect("ASCII"))
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("ASCII"))
    }

    #[test]
    fn an_identity_has_every_name_of_its_certificate() {
        let subject = [
            (DnType::CommonName, "Zoë"),
            (DnType::OrganizationalUnitName, "ops"),
            (DnType::OrganizationName, "Corp"),
        ];
        let address = SanType::IpAddress("192.0.2.1".parse().expect("an address"));
        let names = vec![
            uri("spiffe://corp/ns/prod/sa/web"),
            dns("web.corp.example"),
            address,
            dns("*.corp.example"),
            SanType::Rfc822Name("web@corp.example".try_into().expect("ASCII")),
        ];
        let identity = identity(&certificate(&subject, names)).expect("an identity");
        assert_eq!(identity.uri, ["spiffe://corp/ns/prod/sa/web"]);
        assert_eq!(identity.dns, ["web.corp.example", "*.corp.example"]);
        assert_eq!(identity.cn.as_deref(), Some("Zoë"));
        assert_eq!(identity.ou, ["ops"]);
    }

    /// The output of `openssl x509 -in certs/client.pem -noout -subject -fingerprint -sha256`.
    #[test]
    fn the_fingerprint_equals_the_one_of_openssl() {
        let pem = include_bytes!("../../certs/client.pem");
        let certificate = rustls_pemfile::certs(&mut &pem[..]).next();
        let certificate = certificate.expect("a certificate").expect("PEM");
        let identity = identity(&certificate).expect("an identity");
        assert_eq!(identity.sha256, FINGERPRINT);
    }

    #[test]
    fn a_certificate_without_names_has_only_its_fingerprint() {
        let identity = identity(&certificate::<&str>(&[], vec![])).expect("an identity");
        let nameless = Identity {
            sha256: identity.sha256.clone(),
            ..Identity::default()
        };
        assert_eq!(identity, nameless);
        assert_eq!(identity.sha256.len(), 64);
    }

    #[test]
    fn a_name_is_read_in_every_encoding() {
        for (value, expected) in [
            (DnValue::Utf8String("Zoë 漢".into()), "Zoë 漢"),
            (
                DnValue::BmpString(BmpString::try_from("Zoë 漢").expect("in the first plane")),
                "Zoë 漢",
            ),
            (
                DnValue::UniversalString(UniversalString::try_from("Zoë 🔑").expect("a name")),
                "Zoë 🔑",
            ),
            (
                DnValue::TeletexString(TeletexString::try_from("Zoe").expect("ASCII")),
                "Zoe",
            ),
        ] {
            let subject = [
                (DnType::CommonName, value.clone()),
                (DnType::OrganizationalUnitName, value),
            ];
            let identity = identity(&certificate(&subject, vec![])).expect("an identity");
            assert_eq!(identity.cn.as_deref(), Some(expected));
            assert_eq!(identity.ou, [expected]);
        }
        let line_break = BmpString::try_from("alice\nbob").expect("in the first plane");
        let subject = [(DnType::CommonName, DnValue::BmpString(line_break))];
        let bad = identity(&certificate(&subject, vec![]));
        assert_eq!(bad, Err(BadCertificate::Name));
    }

    #[test]
    fn a_name_with_control_characters_is_a_bad_certificate() {
        for control in ['\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}'] {
            let name = format!("alice{control}.example");
            for certificate in [
                certificate::<&str>(&[], vec![uri(&format!("spiffe://corp/{name}"))]),
                certificate::<&str>(&[], vec![dns("corp.example"), dns(&name)]),
                certificate(&[(DnType::CommonName, &name)], vec![]),
                certificate(&[(DnType::OrganizationalUnitName, &name)], vec![]),
            ] {
                assert_eq!(
                    identity(&certificate),
                    Err(BadCertificate::Name),
                    "{name:?}"
                );
            }
        }
    }

    #[test]
    fn a_truncated_or_extended_certificate_has_no_identity() {
        let whole = certificate(&[(DnType::CommonName, "alice")], vec![dns("corp.example")]);
        for length in 0..whole.len() {
            let cut = identity(&whole[..length]);
            assert_eq!(cut, Err(BadCertificate::Unreadable), "{length} bytes");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(identity(&longer), Err(BadCertificate::Unreadable));
    }

    const FINGERPRINT: &str = "0746ad4f7550965c0326797bcd515136a878f96dd1200a28e5fd65d29a02c9be";
}
