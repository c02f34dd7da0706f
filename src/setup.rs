//! What a configuration makes of a proxy, in one piece: a reload puts another in its place.
//!
//! A connection takes the setup of its moment and keeps what it needs of it. Only who the client is
//! and where it may go is asked of the latest one, by the same function for a client that comes in,
//! for one whose session is resumed, and for one that has been here for days.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{self, CertificateError};

use crate::backend::{Backend, Backends};
use crate::connection::{Front, Timeouts};
use crate::facts::Facts;
use crate::outcome::Outcome;
use crate::route::{Expecting, Naming, Query, Refusal, Routes};

/// What connections are served by.
#[derive(Debug)]
pub(crate) struct Setup {
    pub timeouts: Timeouts,
    pub routes: Routes,
    pub backends: Backends,
    /// By the name of the listener.
    pub fronts: HashMap<String, Arc<Front>>,
}

/// Why a client whose handshake is done may not come in, or stay.
#[derive(Debug)]
pub(crate) enum Unwelcome {
    /// No route takes it.
    Route(Refusal),
    /// Its certificate is not good any more.
    Certificate(rustls::Error),
}

impl Setup {
    /// Whether a client could come to have a backend, before it is known who it is.
    pub(crate) fn expect(
        &self,
        front: &Front,
        query: &Query<'_>,
        naming: Naming,
    ) -> Result<(), Refusal> {
        let expecting = match &front.tls {
            Some(tls) if tls.asks_for_certificates() => Expecting::Somebody,
            _ => Expecting::Nobody,
        };
        self.routes.expect(query, expecting, naming)
    }

    /// The backend of a client whose handshake is done and whose certificate was verified.
    pub(crate) fn route(&self, facts: &Facts) -> Result<&Arc<Backend>, Refusal> {
        let tls = facts.tls.as_ref();
        let name = self.routes.choose(&Query {
            listener: facts.listener.as_deref().unwrap_or_default(),
            sni: tls.and_then(|tls| tls.sni.as_deref()),
            alpn: tls.and_then(|tls| tls.alpn.as_deref()),
            peer: facts.peer_ip(),
            identity: facts.identity.as_ref(),
        })?;
        // The configuration has checked that every route's backend exists.
        self.backends.get(name).ok_or(Refusal::NoRoute)
    }

    /// Whether a certificate that was verified once would be again.
    pub(crate) fn verify(
        &self,
        facts: &Facts,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let front = facts.listener.as_ref().and_then(|it| self.fronts.get(it));
        match front.and_then(|front| front.tls.as_ref()) {
            Some(tls) => tls.verify(chain, unix_time(facts.accepted_at)),
            // A listener that is gone asks nothing of those who came by it.
            None => Ok(()),
        }
    }

    /// As [`Self::route`], for a certificate that was verified by another setup, or in another
    /// handshake.
    pub(crate) fn admit(
        &self,
        facts: &Facts,
        chain: &[CertificateDer<'_>],
    ) -> Result<&Arc<Backend>, Unwelcome> {
        self.verify(facts, chain).map_err(Unwelcome::Certificate)?;
        self.route(facts).map_err(Unwelcome::Route)
    }
}

impl Unwelcome {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Route(Refusal::NoRoute) => Outcome::NoRoute,
            Self::Route(Refusal::Denied) => Outcome::Denied,
            Self::Certificate(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => {
                Outcome::Revoked
            }
            Self::Certificate(_) => Outcome::HandshakeFailed,
        }
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}
