//! The running configuration as one value, which a reload replaces.
//!
//! A connection keeps the parts of the configuration that it was accepted with. Only the admission
//! of the client and the choice of its backend use the latest one. The same function decides for a
//! new client, for a resumed session, and at a reload for every open connection.

mod front;
mod join;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};

pub(crate) use self::front::{ActiveFront, FrontState, OneMore, Trouble, TroubleKind};
pub(crate) use self::join::{ActiveJoin, DIAL_BUDGET, JoinSettings};
use crate::backend::network_worker::WorkerHost;
use crate::backend::{ActiveBackend, Backends};
use crate::facts::Facts;
use crate::limits::FirstStage;
use crate::proxy_protocol::Trusted;
use crate::relay;
use crate::rendezvous::wire::GateRefusal;
use crate::route::{Expecting, Naming, Query, RouteRefusal, Routes};
use crate::tls::{Alpn, Protocol, TlsAcceptor};
use crate::tunnel::TunnelSettings;

/// The part of the configuration that connections use.
#[derive(Debug)]
pub(crate) struct ActiveConfig {
    pub timeouts: Timeouts,
    /// How long a drain may take.
    pub drain: Option<Duration>,
    pub routes: Routes,
    pub backends: Backends,
    /// By the name of the listener.
    pub listeners: HashMap<Arc<str>, Arc<ListenerConfig>>,
    pub joins: Vec<Arc<ActiveJoin>>,
}

/// The maximum duration of each phase; `None` is unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From accept to the end of the handshake.
    pub handshake: Option<Duration>,
    /// From the end of the handshake until a backend has the connection.
    pub backend: Option<Duration>,
    pub relay: relay::InactivityTimeouts,
    /// From accept to the end of the connection.
    pub lifetime: Option<Duration>,
}

/// The configuration of one listener's connections.
#[derive(Debug)]
pub(crate) struct ListenerConfig {
    pub name: Arc<str>,
    /// `None` on a plaintext listener.
    pub tls: Option<TlsAcceptor>,
    /// The load balancers whose connections begin with a PROXY protocol header.
    pub proxies: Option<Trusted>,
    /// Clients may bring tunnels.
    pub tunnel: Option<TunnelSettings>,
}

impl ListenerConfig {
    /// The first stage of a client's connection after its address is known.
    pub(crate) fn first_stage(&self) -> FirstStage {
        match self.tls {
            Some(_) => FirstStage::Handshake,
            None => FirstStage::Backend,
        }
    }
}

impl ListenerConfig {
    /// The settings of the tunnel that a client of this listener has brought, if it has agreed on one.
    pub(crate) fn tunnel(&self, facts: &Facts) -> Option<&TunnelSettings> {
        let alpn = facts.tls.as_ref()?.alpn.as_deref()?;
        let settings = self.tunnel.as_ref()?;
        (facts.tunnel().is_none() && settings.alpn == alpn).then_some(settings)
    }
}

/// The application protocol (ALPN) that the server selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreed {
    On(Protocol),
    /// The handshake continues without a protocol.
    OnNone,
    /// The handshake fails with `no_application_protocol` (RFC 7301 §3.2).
    Nothing,
}

/// Why a client is not admitted after its handshake, or not any more.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// No route accepts it.
    Route(RouteRefusal),
    /// Its certificate is not accepted any more.
    Certificate(rustls::Error),
}

impl ActiveConfig {
    /// The backend for a client after its handshake, whose certificate was verified with this
    /// configuration.
    pub(crate) fn route(&self, facts: &Facts) -> Result<&Arc<ActiveBackend>, RouteRefusal> {
        let tls = facts.tls.as_ref();
        let name = self.routes.choose(&Query {
            listener: facts.listener.as_deref().unwrap_or_default(),
            sni: tls.and_then(|tls| tls.sni.as_deref()),
            alpn: tls.and_then(|tls| tls.alpn.as_deref()),
            peer: facts.peer_ip(),
            identity: facts.identity.as_deref(),
            authority: facts.authority(),
        })?;
        // Decoding the configuration has checked that the backend of every route exists.
        self.backends.get(name).ok_or(RouteRefusal::NoRoute)
    }

    /// Whether the listener that accepted the client still exists.
    pub(crate) fn has_listener(&self, facts: &Facts) -> bool {
        let listener = facts.listener.as_ref();
        listener.is_some_and(|listener| self.listeners.contains_key(listener))
    }

    /// Whether the connection carries a tunnel: only its streams have routes.
    pub(crate) fn is_carrier(&self, facts: &Facts) -> bool {
        let listener = facts.listener.as_ref();
        let listener = listener.and_then(|it| self.listeners.get(it));
        listener.is_some_and(|it| it.tunnel(facts).is_some())
    }

    /// Whether a worker may come through a tunnel for connections of the backend.
    ///
    /// # Errors
    ///
    /// The refusal for the worker.
    pub(crate) fn admit_worker(&self, host: &WorkerHost, backend: &str) -> Result<(), GateRefusal> {
        let listener = self.listeners.get(&host.listener);
        let tunnel = listener.and_then(|it| it.tunnel.as_ref());
        if !tunnel.is_some_and(|it| it.workers) {
            return Err(GateRefusal::Forbidden);
        }
        let backend = self.backends.get(backend).ok_or(GateRefusal::Unknown)?;
        match backend.admits_worker(host.identity.as_deref()) {
            true => Ok(()),
            false => Err(GateRefusal::Forbidden),
        }
    }

    /// Verifies again a certificate that another configuration has accepted.
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
            // A removed listener has no rules for its remaining connections.
            None => Ok(()),
        }
    }

    /// Like [`Self::route`], for a certificate that another configuration has verified.
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

/// Selects the protocol for a client that offers `theirs`, before its identity is known: the first
/// of the listener's own for which a route may choose a backend. The protocol in `query` is empty.
///
/// Both the handshake and `vestibule check --explain` call this function, so that they agree.
///
/// # Errors
///
/// No route accepts the client, and the handshake ends with `access_denied`.
pub(crate) fn agree(
    alpn: &Alpn,
    theirs: &[&[u8]],
    routes: &Routes,
    query: &Query<'_>,
    expecting: Expecting,
) -> Result<Agreed, RouteRefusal> {
    // A list that is collected from the routes does not mean that the backend of every route speaks
    // each protocol in it.
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
        // Without a protocol, a later route could match the client and bypass the rule that denies.
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
