//! Who may come in with which certificate, in a handshake and ever after.
//!
//! rustls asks once, when the certificate comes. A session that is to be resumed and a connection that
//! is open have one too; for them [`ClientAuth::verify`] asks again.

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
use super::{pinned, provider};

/// What a listener wants of its clients' certificates.
#[derive(Debug)]
pub(crate) struct ClientAuthSettings {
    pub demand: Demand,
    /// Those that clients' certificates come from.
    pub authorities: Roots,
    /// What these, and those between, have revoked.
    pub revoked: Vec<List>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// A client may have none; one that it has must be valid.
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

    /// What authorities have revoked.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &List> {
        self.revocations.lists()
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// What sessions depend on beyond what is asked of them again, the chain of whoever resumes one
    /// among it: those from before another demand are not resumed.
    pub(super) fn context(&self) -> &'static [u8] {
        match self.demand {
            Demand::Optional => b"optional",
            Demand::Required => b"required",
        }
    }

    /// Whether a client with this certificate chain, its own first, would be let in.
    ///
    /// `since` is when it was: what has expired since then may stay, what was revoked may not.
    ///
    /// # Errors
    ///
    /// Why not, as in a handshake.
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

/// What is wrong with what a listener knows of its clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientAuthError {
    #[error("{0}")]
    Build(#[from] VerifierBuilderError),
}

/// rustls's verifier, with what else makes a certificate good for something.
#[derive(Debug)]
struct Verifier {
    rustls: Arc<dyn ClientCertVerifier>,
    authorities: Roots,
    hints: Vec<DistinguishedName>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    revocations: Arc<Revocations>,
}

impl Verifier {
    /// The path to an authority, with nothing on it that is revoked.
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
                // Once was long enough.
                Err(webpki::Error::MaximumSignatureChecksExceeded) => {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                Err(webpki::Error::UnknownRevocationStatus) => {
                    return Err(CertificateError::UnknownRevocationStatus.into());
                }
                Err(_) => {}
            }
        }
        // It has the words for what is wrong; if nothing is, it is that which it was not told.
        let verified = self.rustls.verify_client_cert(own, intermediates, now)?;
        match self.revocations.is_empty() {
            true => Ok(verified),
            false => Err(CertificateError::Revoked.into()),
        }
    }
}

/// The names of the authorities, for clients to choose a certificate by; none if they are too many. A
/// part of them would keep clients of the others from showing theirs, and none says that any will do
/// (RFC 8446 §4.2.4). Above 64 KiB the message is malformed, and Java gives up at half of that.
fn hints(subjects: &[DistinguishedName]) -> Vec<DistinguishedName> {
    let length = |name: &DistinguishedName| 2 + name.as_ref().len();
    let length: usize = subjects.iter().map(length).sum();
    match length <= MOST_HINTS {
        true => subjects.to_vec(),
        false => Vec::new(),
    }
}

/// Of a chain's certificates each may be the issuer of each that names it, and webpki tries up to 100
/// signatures to find out: the work of a hundred handshakes, for somebody whom nobody knows. In real
/// chains one name has one certificate, or two where authorities vouch for each other.
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
            // RFC 8446 §6.2: `bad_certificate` is for "signatures that did not verify correctly", and
            // rustls's `decrypt_error` for those of the handshake.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Err(CertificateError::BadEncoding.into())
            }
            Err(error) => Err(error),
            // It is good for nothing if nobody can say who it is.
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

/// Bytes of the names of authorities that a client is told.
const MOST_HINTS: usize = 16 * 1024;

/// Certificates between a client's own and its authority's.
const MOST: usize = 8;
const MOST_OF_ONE_NAME: usize = 2;
