//! The connection's own handle on its ledger entry.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use super::Ledger;
use super::access_log::{Closed, cause};
use super::entry::{ConnectionState, Ended, Entry};
use super::index::Name;
use super::refusals::{Detail, Origin, Reason};
use crate::facts::{Endpoint, Facts, TlsFacts};
use crate::identity::Identity;
use crate::journal::{ConnectionEnd, Event, EventKind};
use crate::outcome::Outcome;
use crate::traffic::Traffic;

/// The peer of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The client itself.
    Direct,
    /// A load balancer, which has not named the client yet.
    Proxy,
}

/// The record of one open connection.
///
/// Dropping it closes the record: it is counted and logged together, so that the two cannot
/// disagree. If [`LedgerRecord::close`] was not called, the outcome is `aborted`.
#[derive(Debug)]
#[must_use]
pub(crate) struct LedgerRecord {
    entry: Arc<Entry>,
    ledger: Arc<Ledger>,
    span: Span,
    outcome: Outcome,
    is_admitted: bool,
    /// Boxed, because every connection holds its record for its whole life.
    detail: Option<Box<Detail>>,
}

impl LedgerRecord {
    pub(super) fn new(entry: Arc<Entry>, ledger: Arc<Ledger>, via: Via) -> Self {
        let facts = entry.facts();
        let peer = facts.peer.as_ref().map(display);
        let (peer, proxy) = match via {
            Via::Direct => (peer, None),
            Via::Proxy => (None, peer),
        };
        let span = debug_span!(
            "connection",
            id = entry.id.short(),
            listener = facts.listener.as_deref(),
            peer,
            identity = Empty,
            proxy,
            client_side = Empty,
            backend = Empty,
            backend_side = Empty,
            backend_identity = Empty
        );
        Self {
            entry,
            ledger,
            span,
            outcome: Outcome::Aborted,
            is_admitted: false,
            detail: None,
        }
    }

    /// The facts known so far.
    pub(crate) fn facts(&self) -> Arc<Facts> {
        self.entry.facts()
    }

    /// The part that observers share.
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.entry.traffic
    }

    /// See [`Entry::ended`].
    pub(crate) fn ended(&self) -> Ended<'_> {
        self.entry.ended()
    }

    /// The span for all log lines about the connection.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The PROXY protocol header named the client's address and the address that it connected to.
    pub(crate) fn readdressed(&mut self, peer: Option<Endpoint>, local: Option<Endpoint>) {
        let (id, index) = (self.entry.id, &self.ledger.index);
        if let Some(ip) = self.facts().peer_ip() {
            index.take_away(id, Name::Peer(ip));
        }
        if let Some(ip) = peer.as_ref().and_then(Endpoint::ip) {
            index.add(id, Name::Peer(ip));
        }
        self.entry
            .learn(|facts| (facts.peer, facts.local) = (peer, local));
    }

    /// The PROXY protocol header is complete: the facts now have the addresses of the client's
    /// connection.
    pub(crate) fn introduced(&mut self) {
        let facts = self.facts();
        self.span.record("peer", facts.peer.as_ref().map(display));
    }

    /// The handshake is done.
    pub(crate) fn secured(&mut self, tls: TlsFacts) {
        self.ledger.totals.secured(tls.resumed);
        self.entry.learn(|facts| facts.tls = Some(tls));
    }

    /// The client has proved its identity with this certificate chain.
    pub(crate) fn identified(&mut self, identity: Identity, chain: Vec<CertificateDer<'static>>) {
        self.span.record("identity", display(&identity));
        self.entry.keep_chain(chain.into());
        let identity = Arc::new(identity);
        self.entry
            .learn(|facts| facts.identity = Some(Arc::clone(&identity)));
        self.ledger.index.add_identity(self.entry.id, &identity);
    }

    /// What another Vestibule has said of the client, whose connection it has offered. No certificate was seen here.
    pub(crate) fn told(&mut self, tls: Option<TlsFacts>, identity: Option<Identity>) {
        let identity = identity.map(Arc::new);
        if let Some(identity) = &identity {
            self.span.record("identity", display(&**identity));
            self.ledger.index.add_identity(self.entry.id, identity);
        }
        self.entry.learn(|facts| {
            facts.tls = tls;
            facts.identity = identity;
        });
    }

    /// A route chose the backend, and the connection waits for it. `client_side` is the kind of the
    /// client's side of the relay.
    pub(crate) fn routed(&mut self, backend: &str, client_side: &'static str) {
        self.span.record("backend", backend);
        self.span.record("client_side", client_side);
        self.entry.learn(|facts| facts.backend = backend.to_owned());
        self.ledger.index.add(self.entry.id, Name::Backend(backend));
        self.entry.set_state(ConnectionState::Waiting);
        self.open();
    }

    /// The client was admitted.
    fn open(&mut self) {
        self.is_admitted = true;
        let journal = &self.ledger.journal;
        if journal.is_observed() {
            journal.publish(Event::now(EventKind::Open(self.facts())));
        }
    }

    /// The client brings a tunnel.
    pub(crate) fn carries(&mut self) {
        self.span.record("client_side", "carrier");
        self.entry.carry(0);
        self.entry.set_state(ConnectionState::Relaying);
        self.open();
    }

    /// The tunnel has as many streams now.
    pub(crate) fn carries_streams(&self, streams: usize) {
        self.entry.carry(streams);
    }

    /// A backend took the connection. `backend_side` is the kind of the backend's side of the relay;
    /// `identity` is the backend's, if it has TLS.
    pub(crate) fn reached(&mut self, backend_side: &'static str, identity: Option<Box<Identity>>) {
        self.span.record("backend_side", backend_side);
        if let Some(identity) = identity {
            self.span.record("backend_identity", display(&identity));
            self.entry
                .learn(|facts| facts.set_backend_identity(Arc::from(identity)));
        }
        self.entry.set_state(ConnectionState::Relaying);
    }

    /// It is at the address with this number.
    pub(crate) fn served_at(&mut self, address: u32) {
        self.entry.set_address(address);
    }

    /// Both sides are being told that the connection ends.
    pub(crate) fn closing(&mut self) {
        self.entry.set_state(ConnectionState::Closing);
    }

    /// Closes the record.
    pub(crate) fn close(mut self, outcome: Outcome, detail: Detail) {
        self.outcome = outcome;
        if detail != Detail::default() {
            self.detail = Some(Box::new(detail));
        }
    }

    /// Counts a refusal only if the outcome says that the client was not served: the connection may
    /// have ended for another cause than `detail` has.
    fn note_refusal(&self, facts: &Facts, detail: Detail) {
        let bytes = self.traffic().to_client.get();
        let refused = detail.reason.filter(|it| *it == Reason::Revoked);
        let Some(usual) = Reason::of(self.outcome, bytes).or(refused) else {
            return;
        };
        let Detail { reason, cause } = detail;
        let origin = Origin {
            listener: facts.listener.clone().unwrap_or_default(),
            peer: facts.peer.clone(),
        };
        let reason = reason.unwrap_or(usual);
        self.ledger.refusals.note(reason, origin, cause);
    }

    fn publish_end(&self, facts: &Arc<Facts>, detail: &Detail) {
        if !self.ledger.journal.is_observed() {
            return;
        }
        let ended = ConnectionEnd {
            outcome: self.outcome,
            cause: cause(self.outcome, detail).into(),
            bytes_in: self.traffic().from_client.get(),
            bytes_out: self.traffic().to_client.get(),
            seconds: self.entry.age().as_secs_f64(),
            facts: Arc::clone(facts),
        };
        let kind = match self.is_admitted {
            true => EventKind::Close(ended),
            false => EventKind::Refuse(ended),
        };
        self.ledger.journal.publish(Event::now(kind));
    }
}

impl Drop for LedgerRecord {
    fn drop(&mut self) {
        let facts = self.facts();
        self.ledger.index.remove(&self.entry);
        self.ledger.close_one(self.outcome);
        let detail = self.detail.take().map_or_else(Detail::default, |it| *it);
        let listener = facts.listener.as_deref().unwrap_or_default();
        let (traffic, age) = (self.traffic(), self.entry.age());
        let metrics = self.ledger.metrics.listener(listener);
        metrics.closed(self.outcome, traffic, age);
        let closed = Closed {
            facts: &facts,
            outcome: self.outcome,
            detail: &detail,
            traffic,
            age,
        };
        let log = &self.ledger.closing_log;
        self.span.in_scope(|| log.write(&closed));
        self.publish_end(&facts, &detail);
        self.note_refusal(&facts, detail);
    }
}
