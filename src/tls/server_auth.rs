//! Verifies backends, in a full handshake and again before a session is resumed.
//!
//! The rules in `tls.allow` are part of the verification: a server that no rule allows gets an
//! alert during the handshake, and never sees our certificate.

use std::cell::RefCell;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certs::Role;
use super::identity::{BadCertificate, identity};
use super::roots::Roots;
use super::{pinned, provider};
use crate::identity::Rule;

/// Verifies the certificates of a backend: authority, name, validity period, and `allow`.
#[derive(Debug)]
pub(super) struct ServerAuth {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Roots,
    allow: Vec<Rule>,
}

impl ServerAuth {
    pub(super) fn new(roots: &Roots, allow: &[Rule]) -> Self {
        let builder = WebPkiServerVerifier::builder_with_provider(roots.store(), provider());
        Self {
            webpki: builder.build().expect("there is at least one authority"),
            roots: roots.clone(),
            allow: allow.to_vec(),
        }
    }

    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), ServerRefusal> {
        let identity = identity(certificate).map_err(ServerRefusal::Unreadable)?;
        match self.allow.is_empty() || self.allow.iter().any(|rule| rule.admits(&identity)) {
            true => Ok(()),
            false => Err(ServerRefusal::NotAllowed(identity.to_string())),
        }
    }
}

impl ServerCertVerifier for ServerAuth {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match self.roots.have(end_entity) {
            true => trusted_itself(end_entity, server_name, now)?,
            false => self.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?,
        };
        self.admit(end_entity).map_err(|refusal| {
            let error = refusal.error();
            REFUSAL.set(Some(refusal));
            error
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.roots.have(cert) {
            true => pinned::verify_tls12_signature(message, cert, dss),
            false => self.webpki.verify_tls12_signature(message, cert, dss),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.roots.have(cert) {
            true => pinned::verify_tls13_signature(message, cert, dss),
            false => self.webpki.verify_tls13_signature(message, cert, dss),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Verifies a certificate that is itself one of the trusted ones, byte for byte.
fn trusted_itself(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let certificate = pinned::verify(certificate, now, Role::Server)?;
    pinned::verify_name(&certificate, server_name)?;
    Ok(ServerCertVerified::assertion())
}

/// Why a valid certificate is refused.
#[derive(Debug)]
pub(super) enum ServerRefusal {
    NotAllowed(String),
    Unreadable(BadCertificate),
}

impl ServerRefusal {
    /// As a rustls error, which causes the alert `access_denied` or `bad_certificate`.
    fn error(&self) -> Error {
        match self {
            Self::NotAllowed(_) => CertificateError::ApplicationVerificationFailure.into(),
            Self::Unreadable(_) => CertificateError::BadEncoding.into(),
        }
    }

    /// The refusal behind the error that has just failed a handshake.
    ///
    /// rustls's errors cannot carry a name. The handshake fails in the same poll in which the
    /// certificate is verified, so the refusal cannot belong to another connection of this thread.
    pub(super) fn of(error: &Error) -> Option<Self> {
        REFUSAL.take().filter(|refusal| refusal.error() == *error)
    }
}

thread_local! {
    static REFUSAL: RefCell<Option<ServerRefusal>> = const { RefCell::new(None) };
}
