//! Distinguished names in certificates and revocation lists: comparison and display.

use std::fmt::Write;

use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::identity::decoded;

/// A name in a form that can be compared: authorities write the same name with different string
/// types and case in their certificates and lists (RFC 5280 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Normal(Box<[u8]>);

impl Normal {
    /// From the form that webpki uses: the content of the outer SEQUENCE.
    pub(super) fn of_content(content: &[u8]) -> Self {
        Self::of(&wrapped(content))
    }

    /// From a complete name in DER.
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
            // The parts form a set, and their order in DER depends on the encoding of the values.
            parts.sort();
            // Writing to a String cannot fail.
            let _ = write!(normal, "{parts:?}");
        }
        Self(normal.into_bytes().into())
    }
}

/// For display, in the format of `openssl x509 -subject`.
pub(super) fn shown(name: &X509Name<'_>) -> String {
    match name.to_string() {
        empty if empty.is_empty() => "a certificate without a name".into(),
        name => name,
    }
}

/// With single spaces between words, and none at the ends.
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
