//! What a configuration makes of a proxy, in one piece: a reload puts another in its place.
//!
//! A connection takes the configuration of its moment and keeps what it needs of it. Only who the client is
//! and where it may go is asked of the latest one, by the same function for a client that comes in,
//! for one whose session is resumed, and for one that has been here for days.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};

use crate::backend::{ActiveBackend, Backends};
use crate::facts::Facts;
use crate::limits::FirstStage;
use crate::proxy_protocol::Trusted;
use crate::relay;
use crate::route::{Expecting, Naming, Query, RouteRefusal, Routes};
use crate::tls::{Alpn, Protocol, TlsAcceptor};

/// What connections are served by.
#[derive(Debug)]
pub(crate) struct ActiveConfig {
    pub timeouts: Timeouts,
    pub routes: Routes,
    pub backends: Backends,
    /// By the name of the listener.
    pub listeners: HashMap<Arc<str>, Arc<ListenerConfig>>,
}

/// How long each phase may take; `None` is unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From accept to the end of the handshake.
    pub handshake: Option<Duration>,
    /// From the end of the handshake until a backend has it.
    pub backend: Option<Duration>,
    pub relay: relay::RelayTimeouts,
    /// From accept to the end.
    pub lifetime: Option<Duration>,
}

/// What the connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct ListenerConfig {
    pub name: Arc<str>,
    /// `None` on a plaintext listener.
    pub tls: Option<TlsAcceptor>,
    /// The load balancers, of which each connection begins with a PROXY protocol header.
    pub proxies: Option<Trusted>,
}

impl ListenerConfig {
    /// What a client does first, once it is known who that is.
    pub(crate) fn begins(&self) -> FirstStage {
        match self.tls {
            Some(_) => FirstStage::Handshake,
            None => FirstStage::Backend,
        }
    }
}

/// Which protocol (ALPN) a client is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreed {
    On(Protocol),
    /// The handshake goes on without.
    OnNone,
    /// The handshake ends with `no_application_protocol`.
    Nothing,
}

/// Why a client whose handshake is done may not come in, or stay.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// No route takes it.
    Route(RouteRefusal),
    /// Its certificate is not good any more.
    Certificate(rustls::Error),
}

impl ActiveConfig {
    /// The backend of a client whose handshake is done and whose certificate was verified.
    pub(crate) fn route(&self, facts: &Facts) -> Result<&Arc<ActiveBackend>, RouteRefusal> {
        let tls = facts.tls.as_ref();
        let name = self.routes.choose(&Query {
            listener: facts.listener.as_deref().unwrap_or_default(),
            sni: tls.and_then(|tls| tls.sni.as_deref()),
            alpn: tls.and_then(|tls| tls.alpn.as_deref()),
            peer: facts.peer_ip(),
            identity: facts.identity.as_deref(),
        })?;
        // The configuration has checked that every route's backend exists.
        self.backends.get(name).ok_or(RouteRefusal::NoRoute)
    }

    /// Whether the listener by which a client came is still there.
    pub(crate) fn has_listener(&self, facts: &Facts) -> bool {
        let listener = facts.listener.as_ref();
        listener.is_some_and(|listener| self.listeners.contains_key(listener))
    }

    /// Whether a certificate that was verified once would be again.
    pub(crate) fn verify(
        &self,
        facts: &Facts,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let listener = facts
            .listener
            .as_ref()
            .and_then(|it| self.listeners.get(it));
        match listener.and_then(|listener| listener.tls.as_ref()) {
            Some(tls) => tls.verify(chain, unix_time(facts.accepted_at)),
            // A listener that is gone asks nothing of those who came by it.
            None => Ok(()),
        }
    }

    /// As [`Self::route`], for a certificate that was verified by another configuration.
    pub(crate) fn admit(
        &self,
        facts: &Facts,
        chain: &[CertificateDer<'_>],
    ) -> Result<&Arc<ActiveBackend>, NotAdmitted> {
        self.verify(facts, chain)
            .map_err(NotAdmitted::Certificate)?;
        self.route(facts).map_err(NotAdmitted::Route)
    }
}

/// What a client that names the protocols `theirs` is answered with, before it is known who it is:
/// the first of a listener's own with which a route could serve it. `query` is about no protocol.
///
/// A handshake and `vestibule check --explain` both ask this function, so that they say the same.
///
/// # Errors
///
/// No route could serve the client, and the handshake ends with `access_denied`.
pub(crate) fn agree(
    alpn: &Alpn,
    theirs: &[&[u8]],
    routes: &Routes,
    query: &Query<'_>,
    expecting: Expecting,
) -> Result<Agreed, RouteRefusal> {
    // What the routes name is not what they all take.
    let naming = match alpn {
        Alpn::Offered(_) => Naming::Any,
        Alpn::OfRoutes(_) => Naming::Required,
    };
    let mut refusal = None;
    for protocol in alpn.common(theirs) {
        let query = Query {
            alpn: Some(alpn.name(protocol)),
            ..*query
        };
        match routes.expect(&query, expecting, naming) {
            Ok(()) => return Ok(Agreed::On(protocol)),
            Err(RouteRefusal::Denied) => refusal = Some(RouteRefusal::Denied),
            Err(RouteRefusal::NoRoute) => refusal = refusal.or(Some(RouteRefusal::NoRoute)),
        }
    }
    match (alpn, refusal) {
        // Without a protocol a later route might take the client after all, past the one that denies.
        (_, Some(RouteRefusal::Denied)) => Err(RouteRefusal::Denied),
        (Alpn::Offered(_), Some(RouteRefusal::NoRoute)) => Err(RouteRefusal::NoRoute),
        (Alpn::Offered(_), None) if !theirs.is_empty() => Ok(Agreed::Nothing),
        (Alpn::Offered(_), None) | (Alpn::OfRoutes(_), Some(RouteRefusal::NoRoute) | None) => {
            routes.expect(query, expecting, Naming::Any)?;
            Ok(Agreed::OnNone)
        }
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}
