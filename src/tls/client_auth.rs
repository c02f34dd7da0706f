//! Who may come in with which certificate, in a handshake and ever after.
//!
//! rustls asks once, when the certificate comes. A session that is resumed and a connection that is
//! open have one too; for them [`ClientAuth::verify`] asks again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::identity::identity;
use super::provider;

/// What a listener wants of its clients' certificates.
#[derive(Debug)]
pub(crate) struct Settings {
    pub demand: Demand,
    /// The authorities that clients' certificates come from.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What these, and those between, have revoked.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
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
    demand: Demand,
    context: [u8; 32],
}

impl ClientAuth {
    pub(crate) fn new(settings: Settings) -> Result<Self, ClientAuthError> {
        let mut roots = RootCertStore::empty();
        let mut context = Context::new(&SHA256);
        context.update(&[settings.demand as u8]);
        for authority in settings.authorities {
            context.update(&authority);
            roots.add(authority).map_err(ClientAuthError::Authority)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
            .with_crls(settings.crls)
            // Not every authority in a bundle publishes a list.
            .allow_unknown_revocation_status();
        let builder = match settings.demand {
            Demand::Optional => builder.allow_unauthenticated(),
            Demand::Required => builder,
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Self {
            verifier: Arc::new(WithIdentity(builder.build()?)),
            demand: settings.demand,
            context: digest,
        })
    }

    pub(crate) fn demand(&self) -> Demand {
        self.demand
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Who is let in without being asked anew: sessions from before another demand, or of other
    /// authorities, are not.
    pub(super) fn context(&self) -> &[u8] {
        &self.context
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

/// When a revocation list was to be replaced, if that was before `now`.
///
/// # Errors
///
/// It is no such list.
pub(crate) fn list_is_stale(
    list: &CertificateRevocationListDer<'_>,
    now: SystemTime,
) -> Result<Option<SystemTime>, ClientAuthError> {
    let (_, list) = CertificateRevocationList::from_der(list)
        .map_err(|error| ClientAuthError::RevocationList(error.to_string()))?;
    let next = list.next_update().map(|time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().max(0).unsigned_abs())
    });
    Ok(next.filter(|next| *next < now))
}

/// What is wrong with what a listener knows of its clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientAuthError {
    #[error("an authority's certificate cannot be used: {0}")]
    Authority(Error),
    #[error("not a certificate revocation list (RFC 5280 §5), in PEM or DER: {0}")]
    RevocationList(String),
    #[error("{0}")]
    Build(#[from] VerifierBuilderError),
}

/// A certificate is good for nothing if nobody can say who it is.
#[derive(Debug)]
struct WithIdentity(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for WithIdentity {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        match identity(end_entity) {
            Ok(_) => Ok(verified),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
