//! Why a backend is not trusted, and the alerts by which it refuses our certificate.

use std::io;

use tokio_rustls::rustls::{self, AlertDescription};

use super::first::Failure;
use super::identity::BadCertificate;
use super::is_not_tls;
use super::server_auth::ServerRefusal;
use super::stream::tls_error;
use super::words::words;

/// Why no connection to an address is possible. The first word says who is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The backend: its certificate is for another name, from an unknown authority, or not valid at
    /// this time.
    #[error("{}", words(.0))]
    Unverified(rustls::Error),
    /// The backend: its identity is not one of those in `tls.allow`.
    #[error("no rule of `tls.allow` matches {0}")]
    NotAllowed(String),
    /// The backend: its certificate has no readable identity.
    #[error(transparent)]
    Unreadable(#[from] BadCertificate),
    /// The backend: it requires a client certificate, or does not accept ours.
    #[error("{}", refusal_words(*.0))]
    RefusedUs(AlertDescription),
    /// Both: the backend speaks none of our protocols (RFC 7301 §3.2).
    #[error("{NO_PROTOCOL}")]
    NoProtocol,
    /// The backend: it does not speak TLS.
    #[error("the backend's answer is not TLS")]
    NotTls,
    /// The backend: it closed without an alert.
    #[error(
        "the backend closed during the handshake; check that it speaks TLS from the first byte"
    )]
    Closed,
    /// Both: there is no common protocol or parameter, or the connection failed.
    #[error("TLS handshake failed: {0}")]
    Failed(io::Error),
    /// The configuration: there is no name to compare with the certificate.
    #[error(
        "the certificate cannot be checked, because the address has no name; set \
         `backend.tls.server_name`"
    )]
    Nameless,
}

impl ConnectError {
    /// Whether retries are useless until a certificate or the configuration changes.
    pub(crate) fn is_about_trust(&self) -> bool {
        match self {
            Self::Unverified(_)
            | Self::NotAllowed(_)
            | Self::Unreadable(_)
            | Self::RefusedUs(_)
            | Self::Nameless => true,
            Self::NotTls | Self::Closed | Self::NoProtocol | Self::Failed(_) => false,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        if let Some(alert) = refusal(&error) {
            return Self::RefusedUs(alert);
        }
        match tls_error(&error) {
            Some(cause @ rustls::Error::InvalidCertificate(_)) => match ServerRefusal::of(&cause) {
                Some(ServerRefusal::NotAllowed(identity)) => Self::NotAllowed(identity),
                Some(ServerRefusal::Unreadable(why)) => Self::Unreadable(why),
                None => Self::Unverified(cause),
            },
            Some(cause) if is_not_tls(&cause) => Self::NotTls,
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::NoProtocol
            }
            None if is_closed(error.kind()) => Self::Closed,
            Some(_) | None => Self::Failed(error),
        }
    }
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) => error.into(),
            // An error in the form that a stream returns.
            Failure::Tls(cause) => io::Error::new(io::ErrorKind::InvalidData, cause).into(),
        }
    }
}

/// How a server closes that does not speak TLS, or refuses to speak it with us.
fn is_closed(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::*;
    matches!(
        kind,
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}

/// What an alert that refuses us means. A server may deny access for more than a certificate.
pub(crate) fn refusal_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::AccessDenied => {
            "backend denied access (AccessDenied); see whether its rules or routes admit our client certificate, the \
             server name, and the protocols (ALPN) in `tls.alpn`"
                .into()
        }
        alert => format!("backend rejected our client certificate, or requires one ({alert:?})"),
    }
}

const NO_PROTOCOL: &str =
    "no common protocol (ALPN): the server speaks none of those in `tls.alpn`";

/// The alert by which a server refuses a client for its certificate; see [`is_refusal`].
pub(crate) fn refusal(error: &io::Error) -> Option<AlertDescription> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(alert) if is_refusal(alert) => Some(alert),
        _ => None,
    }
}

/// Whether this alert refuses a client for its certificate. In TLS 1.3 it comes after the client's
/// handshake is complete (RFC 8446 §4.4.2.4), and the next read returns it.
pub(crate) fn is_refusal(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            | CertificateRequired
            | AccessDenied
    )
}
