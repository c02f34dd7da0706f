//! Certificates as X.509 (RFC 5280).

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Parses one certificate without trailing bytes. The error says what is wrong with it.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok((&[], parsed)) => Ok(parsed),
        Ok(_) => Err("extra bytes after its end".into()),
        Err(error) => Err(error.to_string()),
    }
}
