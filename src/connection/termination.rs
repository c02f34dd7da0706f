//! Why a connection ended, and the one map from that to its outcome.

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};
use tracing::debug;

use crate::active_config::NotAdmitted;
use crate::backend::Unserved;
use crate::deadline::Scope;
use crate::ledger::{Detail, Reason};
use crate::limits::Exceeded;
use crate::outcome::{EndCause, Outcome};
use crate::proxy_protocol::HeaderError;
use crate::relay;
use crate::route::RouteRefusal;
use crate::tls;
use crate::tls::words::words;
use crate::tunnel::StatusCode;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Termination {
    /// The client was not admitted.
    Rejected(Rejection),
    /// No backend took the client.
    Unserved(Unserved),
    /// The client left before a backend had it.
    ClientGone,
    /// The relay came to its end.
    Relayed(relay::End),
    /// The backend answered our handshake with an alert, which arrives after the handshake in TLS
    /// 1.3.
    BackendRefused,
    /// `timeouts.lifetime` passed during the relay.
    Lifetime,
    /// It was ended from outside, for example by a kill.
    Ended(EndCause),
}

/// Why a client was not admitted.
#[derive(Debug)]
pub(super) enum Rejection {
    OverLimit(Exceeded),
    /// A phase before the choice of the route took too long.
    TimedOut(Scope),
    Header(HeaderError),
    /// The client left before its PROXY protocol header or its handshake was complete.
    Gone,
    NotTls,
    Handshake(rustls::Error),
    NotAdmitted(NotAdmitted),
    /// No route takes a client that asks for this, or none of its protocols is ours.
    Hello(Wanted, Box<str>),
    /// An operator has revoked this identity, which the client has.
    Revoked(String),
}

/// What nobody here has for the hello of a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Route(RouteRefusal),
    Protocol,
}

impl Termination {
    /// The one map from terminations to outcomes.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(rejection) => rejection.outcome(),
            Self::Unserved(unserved) => of_unserved(*unserved),
            Self::ClientGone => Outcome::ClientGone,
            Self::Relayed(end) => of_relay(*end),
            Self::BackendRefused => Outcome::BackendRefused,
            Self::Lifetime => Outcome::Lifetime,
            Self::Ended(cause) => of_cause(*cause),
        }
    }

    /// The answer to a stream in a tunnel that nobody serves.
    pub(super) fn status(&self) -> StatusCode {
        match self.outcome() {
            Outcome::NoRoute => StatusCode::NOT_FOUND,
            Outcome::OverLimit | Outcome::Shed => StatusCode::TOO_MANY_REQUESTS,
            Outcome::BackendTimeout | Outcome::Lifetime => StatusCode::GATEWAY_TIMEOUT,
            Outcome::Expired | Outcome::Drained => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::BackendRefused | Outcome::BackendReset => StatusCode::BAD_GATEWAY,
            // Denied, killed or revoked: it may not.
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// Whether no worker may serve the client. Otherwise it is only this process that does not.
    pub(super) fn is_about_the_client(&self) -> bool {
        match self {
            Self::Rejected(_) => true,
            Self::Ended(cause) | Self::Unserved(Unserved::Ended(cause)) => match cause {
                EndCause::Killed | EndCause::Revoked => true,
                EndCause::AddressDown | EndCause::Drained | EndCause::Shed => false,
            },
            Self::Unserved(_)
            | Self::ClientGone
            | Self::Relayed(_)
            | Self::BackendRefused
            | Self::Lifetime => false,
        }
    }

    /// Logs the details that the outcome does not contain, at debug level.
    pub(super) fn log(&self) {
        match self {
            Self::Rejected(Rejection::OverLimit(limit)) => {
                debug!(limit = limit.key(), "connection refused");
            }
            Self::Rejected(Rejection::Header(cause)) => {
                debug!(%cause, "PROXY protocol header refused");
            }
            Self::Rejected(Rejection::Handshake(cause)) => {
                debug!(cause = %words(cause), "handshake failed");
            }
            Self::Rejected(Rejection::NotAdmitted(NotAdmitted::Certificate(cause))) => {
                debug!(cause = %words(cause), "certificate refused");
            }
            Self::Rejected(_)
            | Self::Unserved(_)
            | Self::ClientGone
            | Self::Relayed(_)
            | Self::BackendRefused
            | Self::Lifetime
            | Self::Ended(_) => {}
        }
    }

    /// What the closing log line says beside the outcome. `backend` is the name of the client's
    /// backend.
    pub(super) fn detail(&self, backend: &str) -> Detail {
        match self {
            Self::Rejected(rejection) => rejection.detail(),
            Self::Unserved(Unserved::OutOfService(_)) => Detail {
                reason: None,
                cause: Some(
                    format!(
                        "backend {backend:?}: an operator has drained or put down every address"
                    )
                    .into(),
                ),
            },
            Self::Ended(EndCause::AddressDown) => Detail {
                reason: None,
                cause: Some(format!("backend {backend:?}: its address was put down").into()),
            },
            Self::Unserved(_) => Detail {
                reason: None,
                cause: Some(format!("backend {backend:?}").into()),
            },
            Self::ClientGone
            | Self::Relayed(_)
            | Self::BackendRefused
            | Self::Lifetime
            | Self::Ended(_) => Detail::default(),
        }
    }
}

fn of_unserved(unserved: Unserved) -> Outcome {
    match unserved {
        Unserved::Refused | Unserved::OutOfService(None) => Outcome::BackendRefused,
        Unserved::TimedOut(Scope::Phase) | Unserved::OutOfService(Some(Scope::Phase)) => {
            Outcome::BackendTimeout
        }
        Unserved::Expired(Scope::Phase) => Outcome::Expired,
        Unserved::TimedOut(Scope::Lifetime)
        | Unserved::OutOfService(Some(Scope::Lifetime))
        | Unserved::Expired(Scope::Lifetime) => Outcome::Lifetime,
        Unserved::Reset => Outcome::BackendReset,
        Unserved::Drained => Outcome::Drained,
        Unserved::Ended(cause) => of_cause(cause),
    }
}

fn of_relay(end: relay::End) -> Outcome {
    match end {
        relay::End::Done => Outcome::Done,
        relay::End::ClientReset | relay::End::Stopped => Outcome::ClientReset,
        relay::End::ClientTruncated => Outcome::ClientTruncated,
        relay::End::BackendReset(_) => Outcome::BackendReset,
        relay::End::Idle => Outcome::Idle,
        relay::End::HalfClosed => Outcome::HalfClosed,
        relay::End::KeysSpent => Outcome::Lifetime,
    }
}

fn of_cause(cause: EndCause) -> Outcome {
    match cause {
        EndCause::Killed | EndCause::AddressDown => Outcome::Killed,
        EndCause::Revoked => Outcome::Revoked,
        EndCause::Drained => Outcome::Drained,
        EndCause::Shed => Outcome::Shed,
    }
}

impl Rejection {
    fn outcome(&self) -> Outcome {
        match self {
            Self::OverLimit(_) => Outcome::OverLimit,
            Self::TimedOut(Scope::Phase) => Outcome::HandshakeTimeout,
            Self::TimedOut(Scope::Lifetime) => Outcome::Lifetime,
            Self::Header(_) | Self::Handshake(_) => Outcome::HandshakeFailed,
            Self::Gone => Outcome::ClientGone,
            Self::NotTls => Outcome::NotTls,
            Self::NotAdmitted(NotAdmitted::Route(refusal))
            | Self::Hello(Wanted::Route(refusal), _) => match refusal {
                RouteRefusal::NoRoute => Outcome::NoRoute,
                RouteRefusal::Denied => Outcome::Denied,
            },
            Self::Hello(Wanted::Protocol, _) => Outcome::HandshakeFailed,
            Self::NotAdmitted(NotAdmitted::Certificate(cause)) if is_revoked(cause) => {
                Outcome::Revoked
            }
            Self::NotAdmitted(NotAdmitted::Certificate(_)) => Outcome::HandshakeFailed,
            Self::Revoked(_) => Outcome::Revoked,
        }
    }

    fn detail(&self) -> Detail {
        let (reason, cause) = match self {
            Self::OverLimit(limit) => (Reason::OverLimit(limit.key()), None),
            Self::Header(cause) => (Reason::Header, Some(cause.to_string())),
            Self::Handshake(cause) => (reason(cause), Some(words(cause).to_string())),
            Self::NotAdmitted(NotAdmitted::Certificate(cause)) => {
                (Reason::Certificate, Some(words(cause).to_string()))
            }
            Self::Revoked(identity) => (
                Reason::Revoked,
                Some(format!("an operator has revoked {identity}")),
            ),
            Self::Hello(Wanted::Protocol, asked) => (
                Reason::Handshake,
                Some(format!("no common protocol (ALPN): {asked}")),
            ),
            Self::Hello(Wanted::Route(_), asked) => {
                return Detail {
                    reason: None,
                    cause: Some(asked.to_string().into()),
                };
            }
            Self::TimedOut(_)
            | Self::Gone
            | Self::NotTls
            | Self::NotAdmitted(NotAdmitted::Route(_)) => return Detail::default(),
        };
        Detail {
            reason: Some(reason),
            cause: cause.map(Into::into),
        }
    }

    /// The TLS alert for a client with an established TLS session.
    pub(super) fn alert(&self) -> AlertDescription {
        match self {
            Self::NotAdmitted(NotAdmitted::Certificate(cause)) => tls::alert(cause),
            Self::Revoked(_) => AlertDescription::CertificateRevoked,
            Self::NotAdmitted(NotAdmitted::Route(_))
            | Self::OverLimit(_)
            | Self::TimedOut(_)
            | Self::Header(_)
            | Self::Gone
            | Self::NotTls
            | Self::Hello(..)
            | Self::Handshake(_) => AlertDescription::AccessDenied,
        }
    }
}

fn is_revoked(cause: &rustls::Error) -> bool {
    matches!(
        cause,
        rustls::Error::InvalidCertificate(CertificateError::Revoked)
    )
}

/// The name of a handshake failure in the log.
pub(super) fn reason(cause: &rustls::Error) -> Reason {
    match cause {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::InvalidCertRevocationList(_)
        | rustls::Error::NoCertificatesPresented => Reason::Certificate,
        rustls::Error::AlertReceived(_) => Reason::ClientRefused,
        _ => Reason::Handshake,
    }
}
