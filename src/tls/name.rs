//! Distinguished names of certificates and revocation lists: compared, and shown.

use std::fmt::Write;

use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::identity::decoded;

/// A name without its encoding: authorities write the same name with other string types and case in
/// their certificates and in their lists (RFC 5280 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Normal(Box<[u8]>);

impl Normal {
    /// Of a name as webpki has it: the content of the outer SEQUENCE.
    pub(super) fn of_content(content: &[u8]) -> Self {
        Self::of(&wrapped(content))
    }

    /// Of a whole name in DER.
    pub(super) fn of(der: &[u8]) -> Self {
        let Ok((_, name)) = X509Name::from_der(der) else {
            return Self(der.into());
        };
        let mut normal = String::new();
        for relative in name.iter_rdn() {
            let mut parts: Vec<String> = relative
                .iter()
                .map(|it| {
                    let value = decoded(it).map_or_else(
                        || format!("{:?}", it.attr_value().data),
                        |text| words(&text.to_lowercase()),
                    );
                    format!("{}={value}", it.attr_type())
                })
                .collect();
            // A set: in DER its order depends on the encoding of the values.
            parts.sort();
            // A String takes whatever is written.
            let _ = write!(normal, "{parts:?}");
        }
        Self(normal.into_bytes().into())
    }
}

/// For people, as `openssl x509 -subject` has it.
pub(super) fn shown(name: &X509Name<'_>) -> String {
    match name.to_string() {
        empty if empty.is_empty() => "a certificate without a name".into(),
        name => name,
    }
}

/// Single spaces between words, none around them.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrapped(content: &[u8]) -> Vec<u8> {
    use der::Encode;
    use der::asn1::AnyRef;
    AnyRef::new(der::Tag::Sequence, content)
        .and_then(|name| name.to_der())
        .unwrap_or_default()
}
