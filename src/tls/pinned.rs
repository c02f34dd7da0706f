//! Accepts a peer's certificate that is itself one of the trusted certificates, byte for byte.
//!
//! webpki looks for an issuer, and refuses the certificate of an authority (CA:TRUE) as a peer's
//! own. But `openssl req -x509` makes such certificates. A trusted certificate needs no issuer:
//! only its validity period and its purpose are checked.

use std::net::IpAddr;
use std::time::Duration;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::verify_tls13_signature_with_raw_key;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use super::certs::Role;
use super::provider;
use super::x509::parse;

/// Verifies the certificate of a peer with this role.
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

/// Whether its extended key usages (RFC 5280 §4.2.1.12), if there are any, include this role.
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

/// Whether its subjectAltName contains the server's name (RFC 9525 §6).
pub(super) fn verify_name(
    certificate: &X509Certificate<'_>,
    server: &ServerName<'_>,
) -> Result<(), Error> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let is_its = |name: &GeneralName<'_>| match (name, server) {
        (GeneralName::DNSName(name), ServerName::DnsName(server)) => is_name(name, server.as_ref()),
        (GeneralName::IPAddress(bytes), ServerName::IpAddress(address)) => {
            match IpAddr::from(*address) {
                IpAddr::V4(address) => address.octets() == **bytes,
                IpAddr::V6(address) => address.octets() == **bytes,
            }
        }
        _ => false,
    };
    match names.iter().any(is_its) {
        true => Ok(()),
        false => Err(CertificateError::NotValidForName.into()),
    }
}

/// A wildcard must be the complete first label.
fn is_name(name: &str, server: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => server
            .split_once('.')
            .is_some_and(|(_, of)| of.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(server),
    }
}

/// Verifies the signature of a TLS 1.2 handshake with the certificate's key. webpki would also
/// require a version 3 certificate without unknown critical extensions.
pub(super) fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
    let schemes = provider().signature_verification_algorithms.mapping;
    let scheme = schemes.iter().find(|(scheme, _)| *scheme == dss.scheme);
    let (_, algorithms) = scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    // A scheme may stand for several algorithms; one of them matches the type of the key (RFC 8422
    // §5.1.1).
    let mut verified = algorithms
        .iter()
        .map(|algorithm| key.verify_signature(*algorithm, message, dss.signature()));
    match verified.any(|it| it.is_ok()) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// Like [`verify_tls12_signature`], for TLS 1.3.
pub(super) fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
    let algorithms = provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &key, dss, &algorithms)
}

fn unix_time(time: ASN1Time) -> UnixTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
