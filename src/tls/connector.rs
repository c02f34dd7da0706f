//! The TLS side of a dialled backend: a handshake in the place of the client, and who it was with.

use std::io;
use std::sync::Arc;

use tokio_rustls::TlsConnector as Handshaker;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
pub(crate) use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig};

use super::certs::Certificate;
use super::identity::{BadCertificate, identity};
use super::roots::Roots;
use super::stream::tls_error;
use super::{is_not_tls, provider};
use crate::address::Address;
use crate::identity::{Identity, Rule};
use crate::wire::Wire;

/// How TLS is spoken to the addresses of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The name in its certificate; `None`: the host of each address.
    pub server_name: Option<ServerName<'static>>,
    pub roots: Roots,
    /// What we show of ourselves.
    pub certificate: Option<Certificate>,
    pub alpn: Vec<String>,
    /// Whom a certificate must show, beyond the name; empty: nobody in particular.
    pub allow: Vec<Rule>,
}

/// Performs handshakes with the addresses of one backend.
#[derive(Debug)]
pub(crate) struct TlsConnector {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    allow: Vec<Rule>,
}

impl TlsConnector {
    pub(crate) fn new(settings: &Settings) -> Self {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites for both")
            .with_root_certificates(settings.roots.store());
        let mut config = match &settings.certificate {
            Some(certificate) => builder.with_client_cert_resolver(certificate.client_resolver()),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = settings
            .alpn
            .iter()
            .map(|name| name.clone().into())
            .collect();
        // Sessions are of one configuration: one that is resumed was verified by it.
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Self {
            config: Arc::new(config),
            server_name: settings.server_name.clone(),
            allow: settings.allow.clone(),
        }
    }

    /// Performs the handshake with who answers at `address`.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]; the connection is closed then.
    pub(crate) async fn connect<IO>(
        &self,
        address: &Address,
        io: IO,
    ) -> Result<(Box<TlsStream<IO>>, Box<Identity>), ConnectError>
    where
        IO: Wire,
    {
        let name = self.name_of(address)?;
        let handshake = Handshaker::from(Arc::clone(&self.config)).connect(name, io);
        // Boxed as in `TlsAcceptor::accept`.
        let stream = Box::pin(handshake).await.map_err(ConnectError::from)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|chain| chain.first());
        let identity = identity(certificate.ok_or(BadCertificate::Unreadable)?)?;
        // Again for a session that is resumed: it costs little, and nothing depends on the cache.
        if !self.allow.is_empty() && !self.allow.iter().any(|rule| rule.admits(&identity)) {
            return Err(ConnectError::NotAllowed(identity.to_string()));
        }
        Ok((Box::new(stream), Box::new(identity)))
    }

    fn name_of(&self, address: &Address) -> Result<ServerName<'static>, ConnectError> {
        match (&self.server_name, address) {
            (Some(name), _) => Some(name.clone()),
            (None, Address::Tcp { host, .. }) => server_name(host),
            (None, Address::Unix(_)) => None,
        }
        .ok_or(ConnectError::Nameless)
    }
}

/// A DNS name or an IP address, as a certificate has it.
pub(crate) fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

/// Why an address is not one to give a connection to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The backend: its certificate is not for it, not signed by whom we trust, or out of time.
    #[error("{0}")]
    Unverified(rustls::Error),
    /// The backend: it is somebody, and not whom it should be.
    #[error("no rule of `tls.allow` admits {0}")]
    NotAllowed(String),
    /// The backend: nobody can tell who it is.
    #[error(transparent)]
    Unreadable(#[from] BadCertificate),
    /// The backend: it wants another certificate of us, or one at all.
    #[error("it refused our certificate, or the lack of one ({0:?})")]
    RefusedUs(AlertDescription),
    /// The backend: whatever it speaks, TLS it is not.
    #[error("what it answered is not TLS")]
    NotTls,
    /// Both: nothing could be agreed on, or the connection failed.
    #[error("TLS handshake: {0}")]
    Failed(io::Error),
    /// The configuration: there is no name to check a certificate against.
    #[error("the address has no name that a certificate could have; set `tls.server_name`")]
    Nameless,
}

impl ConnectError {
    /// Whether trying again is in vain until somebody changes a certificate or the configuration.
    pub(crate) fn is_about_trust(&self) -> bool {
        match self {
            Self::Unverified(_)
            | Self::NotAllowed(_)
            | Self::Unreadable(_)
            | Self::RefusedUs(_)
            | Self::Nameless => true,
            Self::NotTls | Self::Failed(_) => false,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        if let Some(alert) = refusal(&error) {
            return Self::RefusedUs(alert);
        }
        match tls_error(&error) {
            Some(cause @ rustls::Error::InvalidCertificate(_)) => Self::Unverified(cause),
            Some(cause) if is_not_tls(&cause) => Self::NotTls,
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// The alert by which a server refuses a client for its certificate. In TLS 1.3 it comes after the
/// client's handshake is done (RFC 8446 §4.4.2.4), to whoever reads next.
pub(crate) fn refusal(error: &io::Error) -> Option<AlertDescription> {
    use AlertDescription::*;
    match tls_error(error)? {
        rustls::Error::AlertReceived(
            alert @ (BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            | CertificateRequired
            | AccessDenied),
        ) => Some(alert),
        _ => None,
    }
}

/// Sessions to resume, by server name; each is a few KiB.
const SESSIONS: usize = 256;
