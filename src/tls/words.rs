//! Messages for the errors of rustls and webpki about certificates, with advice.

use std::fmt;

use tokio_rustls::rustls::{CertificateError, Error};

/// Like rustls's own message, except where that only shows a name from its source code.
pub(crate) fn words(error: &Error) -> Words<'_> {
    Words(error)
}

pub(crate) struct Words<'a>(&'a Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = match self.0 {
            Error::InvalidCertificate(CertificateError::Other(other)) => other,
            Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
                return f.write_str(
                    "invalid peer certificate: a revocation list (`crl`) has the name of its \
                     issuer, but the issuer's key did not sign it; get the list again",
                );
            }
            error => return error.fmt(f),
        };
        match other.0.downcast_ref::<webpki::Error>() {
            Some(error) => f.write_str(&of_webpki(error)),
            None => write!(f, "invalid peer certificate: {}", other.0),
        }
    }
}

fn of_webpki(error: &webpki::Error) -> String {
    use webpki::Error::*;
    let words = match error {
        UnsupportedCriticalExtension => {
            "invalid peer certificate: it, or an intermediate, has a critical extension that is \
             not supported, such as certificate policies; issue it without this extension, or mark \
             it as not critical"
        }
        NameConstraintViolation => {
            "invalid peer certificate: the name constraints of its authority exclude one of its \
             names (constraints on URIs are not supported: they exclude every URI)"
        }
        CaUsedAsEndEntity => {
            "invalid peer certificate: it is the certificate of an authority (CA:TRUE) that is not \
             trusted itself"
        }
        EndEntityUsedAsCa => {
            "invalid peer certificate: a certificate that is not an authority (CA:FALSE) signed \
             another certificate of its chain"
        }
        PathLenConstraintViolated => {
            "invalid peer certificate: its chain has more intermediates than `pathlen` allows"
        }
        UnsupportedCertVersion => {
            "invalid peer certificate: it has version 1 or 2; issue it as version 3"
        }
        SignatureAlgorithmMismatch => {
            "invalid peer certificate: it names two different signature algorithms"
        }
        MalformedExtensions | ExtensionValueInvalid | EmptyEkuExtension => {
            "invalid peer certificate: one of its extensions is malformed"
        }
        MalformedNameConstraint | InvalidNetworkMaskConstraint => {
            "invalid peer certificate: the name constraints of its authority are malformed"
        }
        MaximumPathBuildCallsExceeded
        | MaximumPathDepthExceeded
        | MaximumSignatureChecksExceeded
        | MaximumNameConstraintComparisonsExceeded => {
            "invalid peer certificate: its chain is too long or too complex"
        }
        other => return format!("invalid peer certificate: {other:?}"),
    };
    words.into()
}
