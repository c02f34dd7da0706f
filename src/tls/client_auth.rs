//! Decides which client certificates are accepted, in a handshake and later.
//!
//! rustls asks only when the certificate arrives. For resumed sessions and open connections,
//! [`ClientAuth::verify`] verifies it again.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certs::Role;
use super::identity::identity;
use super::revocation::{List, Revocations};
use super::roots::Roots;
use super::{TlsAcceptor, pinned, provider};

/// What a listener requires of client certificates.
#[derive(Debug)]
pub(crate) struct ClientAuthSettings {
    pub demand: Demand,
    /// The authorities of client certificates.
    pub authorities: Roots,
    /// The revocation lists of the authorities and of their intermediates.
    pub revoked: Vec<List>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// A client may have no certificate. If it has one, that must be valid.
    Optional,
    Required,
}

/// Verifies clients' certificates.
#[derive(Clone, Debug)]
pub(crate) struct ClientAuth {
    verifier: Arc<dyn ClientCertVerifier>,
    revocations: Arc<Revocations>,
    demand: Demand,
}

impl ClientAuth {
    pub(crate) fn new(settings: ClientAuthSettings) -> Result<Self, ClientAuthError> {
        let ClientAuthSettings {
            demand,
            authorities,
            revoked,
        } = settings;
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let builder = WebPkiClientVerifier::builder_with_provider(authorities.store(), provider);
        let builder = match demand {
            Demand::Optional => builder.allow_unauthenticated(),
            Demand::Required => builder,
        };
        let rustls = builder.build()?;
        let revocations = Arc::new(revoked.into_iter().collect::<Revocations>());
        let verifier = Verifier {
            hints: hints(rustls.root_hint_subjects()),
            rustls,
            authorities,
            algorithms,
            revocations: Arc::clone(&revocations),
        };
        Ok(Self {
            verifier: Arc::new(verifier),
            revocations,
            demand,
        })
    }

    pub(crate) fn demand(&self) -> Demand {
        self.demand
    }

    /// The revocation lists of all authorities.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &List> {
        self.revocations.lists()
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// What sessions depend on, apart from the chain, which is verified again at each resumption. A
    /// session that was made under another requirement is not resumed.
    pub(super) fn context(&self) -> &'static [u8] {
        match self.demand {
            Demand::Optional => b"optional",
            Demand::Required => b"required",
        }
    }

    /// Whether a client with this certificate chain, its own first, would be admitted now.
    ///
    /// `since` is the time of its handshake. A certificate that has expired since then is accepted;
    /// one that was revoked is not.
    ///
    /// # Errors
    ///
    /// The reason, as in a handshake.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        since: UnixTime,
    ) -> Result<(), Error> {
        match chain {
            [] if self.demand == Demand::Required => Err(Error::NoCertificatesPresented),
            [] => Ok(()),
            [own, intermediates @ ..] => self
                .verifier
                .verify_client_cert(own, intermediates, since)
                .map(drop),
        }
    }
}

impl TlsAcceptor {
    /// The revocation lists of the listener.
    pub(crate) fn revocation_lists(&self) -> impl Iterator<Item = &List> {
        self.client_auth.iter().flat_map(ClientAuth::lists)
    }
}

/// Why the settings for client certificates are not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientAuthError {
    #[error("{0}")]
    Build(#[from] VerifierBuilderError),
}

/// rustls's verifier with additional checks.
#[derive(Debug)]
struct Verifier {
    rustls: Arc<dyn ClientCertVerifier>,
    authorities: Roots,
    hints: Vec<DistinguishedName>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    revocations: Arc<Revocations>,
}

impl Verifier {
    /// Verifies the path to an authority, and that no certificate on it is revoked.
    fn verify_path(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.authorities.have(own) {
            let certificate = pinned::verify(own, now, Role::Client)?;
            return match self.revocations.check_trusted(&certificate, own) {
                Ok(()) => Ok(ClientCertVerified::assertion()),
                Err(webpki::Error::CertRevoked) => Err(CertificateError::Revoked.into()),
                Err(_) => Err(CertificateError::UnknownRevocationStatus.into()),
            };
        }
        if !self.revocations.is_empty() {
            let found = EndEntityCert::try_from(own).and_then(|own| {
                let (roots, usage) = (self.authorities.store(), KeyUsage::client_auth());
                let check = |path: &VerifiedPath<'_>| self.revocations.check(path);
                own.verify_for_usage(
                    self.algorithms,
                    &roots.roots,
                    intermediates,
                    now,
                    usage,
                    None,
                    Some(&check),
                )
                .map(drop)
            });
            match found {
                Ok(()) => return Ok(ClientCertVerified::assertion()),
                // Another attempt would take just as long.
                Err(webpki::Error::MaximumSignatureChecksExceeded) => {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                Err(webpki::Error::UnknownRevocationStatus) => {
                    return Err(CertificateError::UnknownRevocationStatus.into());
                }
                Err(_) => {}
            }
        }
        // rustls names the problem in its errors. If it finds none, the error is what only webpki
        // was told to check.
        let verified = self.rustls.verify_client_cert(own, intermediates, now)?;
        match self.revocations.is_empty() {
            true => Ok(verified),
            false => Err(CertificateError::Revoked.into()),
        }
    }
}

/// The names of the authorities, from which clients choose a certificate. Without names any
/// certificate may be sent (RFC 8446 §4.2.4), so too many names are left out altogether: with a
/// part of them, clients of the other authorities would not send theirs. A message above 64 KiB is
/// malformed, and Java gives up at half of that.
fn hints(subjects: &[DistinguishedName]) -> Vec<DistinguishedName> {
    let length = |name: &DistinguishedName| 2 + name.as_ref().len();
    let length: usize = subjects.iter().map(length).sum();
    match length <= MOST_HINTS {
        true => subjects.to_vec(),
        false => Vec::new(),
    }
}

/// If several certificates have the same name, each may be the issuer of each that names it, and
/// webpki tries up to 100 signatures: an unknown client could cause the work of a hundred
/// handshakes. In real chains a name has one certificate, or two for cross-signed authorities.
fn ensure_few(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() <= MOST_OF_ONE_NAME {
        return Ok(());
    }
    let parsed = |it| X509Certificate::from_der(it).map(|(_, certificate)| certificate);
    let mut named = HashMap::new();
    for certificate in intermediates {
        let certificate = parsed(certificate).map_err(|_| CertificateError::BadEncoding)?;
        *named
            .entry(certificate.subject().as_raw().to_vec())
            .or_insert(0) += 1;
    }
    match intermediates.len() > MOST || named.values().any(|&count| count > MOST_OF_ONE_NAME) {
        true => Err(CertificateError::UnknownIssuer.into()),
        false => Ok(()),
    }
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ensure_few(intermediates)?;
        match self.verify_path(end_entity, intermediates, now) {
            // RFC 8446 §6.2: `bad_certificate` is for "signatures that did not verify correctly".
            // rustls sends `decrypt_error`, which is for signatures of the handshake.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Err(CertificateError::BadEncoding.into())
            }
            Err(error) => Err(error),
            // A certificate without a readable identity is not accepted.
            Ok(verified) => match identity(end_entity) {
                Ok(_) => Ok(verified),
                Err(_) => Err(CertificateError::BadEncoding.into()),
            },
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.rustls.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.rustls.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.authorities.have(cert) {
            true => pinned::verify_tls12_signature(message, cert, dss),
            false => self.rustls.verify_tls12_signature(message, cert, dss),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.authorities.have(cert) {
            true => pinned::verify_tls13_signature(message, cert, dss),
            false => self.rustls.verify_tls13_signature(message, cert, dss),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rustls.supported_verify_schemes()
    }
}

/// The most bytes of authorities' names that are sent to a client.
const MOST_HINTS: usize = 16 * 1024;

/// The most certificates between a client's own and its authority's.
const MOST: usize = 8;
const MOST_OF_ONE_NAME: usize = 2;
