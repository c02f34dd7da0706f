//! A peer's certificate that is itself one of those that are trusted, byte for byte.
//!
//! webpki looks for an issuer above it and takes no authority's (CA:TRUE) for a peer's own, which is
//! how `openssl req -x509` makes them. Of a trusted certificate there is nothing to look for: it must be
//! of today, and for this purpose.

use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::certs::{Role, parse};

/// Whether it may be the certificate of a peer that has this role.
pub(super) fn verify<'a>(
    der: &'a CertificateDer<'_>,
    now: UnixTime,
    role: Role,
) -> Result<X509Certificate<'a>, Error> {
    let certificate = parse(der).map_err(|_| CertificateError::BadEncoding)?;
    let today = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if today < validity.not_before.timestamp() {
        let not_before = unix_time(validity.not_before);
        let time = now;
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if today > validity.not_after.timestamp() {
        let not_after = unix_time(validity.not_after);
        let time = now;
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    match is_for(&certificate, role) {
        true => Ok(certificate),
        false => Err(CertificateError::InvalidPurpose.into()),
    }
}

/// Whether its purposes (RFC 5280 §4.2.1.12), if it names any, have this one.
pub(super) fn is_for(certificate: &X509Certificate<'_>, role: Role) -> bool {
    let usage = match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value,
        Ok(None) => return true,
        Err(_) => return false,
    };
    match role {
        Role::Server => usage.server_auth,
        Role::Client => usage.client_auth,
    }
}

fn unix_time(time: ASN1Time) -> UnixTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
