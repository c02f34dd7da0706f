//! The record of a connection: kept while it is open, and the one place that says how it ended.

mod refusals;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::{Span, debug, debug_span};

use self::refusals::Origin;
pub(crate) use self::refusals::{Reason, Refusals};
use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::outcome::Outcome;
use crate::traffic::Traffic;

/// Counts what is open and how what was open has ended, and knows who of them has an identity.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: AtomicUsize,
    ended: [AtomicU64; Outcome::ALL.len()],
    pub refusals: Refusals,
    known: [Mutex<HashMap<Id, Arc<Known>>>; SHARDS],
}

/// Ids are random, so that two workers hardly ever want the same lock at once.
const SHARDS: usize = 16;

/// An open connection whose client has an identity, which may lose its right to be here.
#[derive(Debug)]
pub(crate) struct Known {
    pub facts: Facts,
    /// The client's certificate and what came with it.
    pub chain: Vec<CertificateDer<'static>>,
    revoked: Notify,
    was_told: AtomicBool,
}

impl Known {
    /// Ends the connection, as soon as it can be told. False when it was told to go already.
    pub(crate) fn revoke(&self) -> bool {
        let is_first = !self.was_told.swap(true, Ordering::Relaxed);
        if is_first {
            self.revoked.notify_one();
        }
        is_first
    }
}

impl Ledger {
    /// Opens the record of a connection that was admitted.
    pub(crate) fn open(self: &Arc<Self>, listener: &Arc<str>, peer: Option<&Endpoint>) -> Record {
        self.open.fetch_add(1, Ordering::Relaxed);
        let id = Id::random();
        let refusal = Refusal::none(listener, peer);
        let (listener, peer) = (&**listener, peer.map(tracing::field::display));
        let span = debug_span!(
            "connection",
            id = id.short(),
            listener,
            peer,
            identity = tracing::field::Empty,
            proxy = tracing::field::Empty,
            backend = tracing::field::Empty,
            relay = tracing::field::Empty,
            backend_identity = tracing::field::Empty
        );
        Record {
            id,
            ledger: Arc::clone(self),
            traffic: Traffic::default(),
            started: Instant::now(),
            outcome: Outcome::Aborted,
            span,
            known: None,
            refusal: Box::new(refusal),
        }
    }

    /// Those whose clients have an identity.
    pub(crate) fn known(&self) -> Vec<Arc<Known>> {
        let shards = self.known.iter();
        shards
            .flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    fn shard(&self, id: Id) -> MutexGuard<'_, HashMap<Id, Arc<Known>>> {
        let [byte, ..] = *id.as_bytes();
        lock(&self.known[usize::from(byte) % SHARDS])
    }

    /// Counts a connection that was turned away at the door.
    pub(crate) fn refused(
        &self,
        listener: &Arc<str>,
        peer: Option<&Endpoint>,
        limit: &'static str,
    ) {
        self.count(Outcome::OverLimit);
        let Refusal { origin, .. } = Refusal::none(listener, peer);
        self.refusals.note(Reason::OverLimit(limit), origin, None);
        let (listener, peer) = (&**listener, peer.map(tracing::field::display));
        debug!(listener, peer, limit, outcome = %Outcome::OverLimit, "connection refused");
    }

    /// Records a connection from none of the trusted proxies, which is closed at the door.
    pub(crate) fn denied(self: &Arc<Self>, listener: &Arc<str>, proxy: Option<&Endpoint>) {
        let mut record = self.open(listener, None);
        record.proxied(proxy);
        record.because(Reason::Untrusted, None);
        record
            .span()
            .in_scope(|| debug!("not one of the trusted proxies"));
        record.close(Outcome::Denied);
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize].load(Ordering::Relaxed)
    }

    fn count(&self, outcome: Outcome) {
        self.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// One open connection.
///
/// Dropping it closes the record, so that a count and its log line cannot disagree; without
/// [`Record::close`] the outcome is `aborted`.
#[derive(Debug)]
#[must_use]
pub(crate) struct Record {
    pub id: Id,
    pub traffic: Traffic,
    ledger: Arc<Ledger>,
    started: Instant,
    outcome: Outcome,
    span: Span,
    known: Option<Arc<Known>>,
    /// Apart, since the record is part of the future that every connection holds all its life.
    refusal: Box<Refusal>,
}

/// What is said about a client that is not served.
#[derive(Debug)]
struct Refusal {
    origin: Origin,
    /// What its outcome does not say.
    detail: OnceLock<(Option<Reason>, Option<Box<str>>)>,
}

impl Refusal {
    fn none(listener: &Arc<str>, peer: Option<&Endpoint>) -> Self {
        let origin = Origin {
            listener: Arc::clone(listener),
            peer: peer.cloned(),
        };
        Self {
            origin,
            detail: OnceLock::new(),
        }
    }
}

impl Record {
    /// Why the client is not served, where its outcome does not say so. The first reason stands.
    pub(crate) fn because(&self, reason: Reason, cause: Option<&dyn fmt::Display>) {
        let cause = cause.map(|cause| cause.to_string().into());
        let _ = self.refusal.detail.set((Some(reason), cause));
    }

    /// Nobody of this backend took the client.
    pub(crate) fn unserved(&self, backend: &str) {
        let cause = format!("backend {backend:?}").into();
        let _ = self.refusal.detail.set((None, Some(cause)));
    }

    /// Enters who the client is. From now on the connection is one of [`Ledger::known`].
    pub(crate) fn identify(&mut self, facts: Facts, chain: Vec<CertificateDer<'static>>) {
        if let Some(identity) = &facts.identity {
            self.span
                .record("identity", tracing::field::display(identity));
        }
        let known = Arc::new(Known {
            facts,
            chain,
            revoked: Notify::new(),
            was_told: AtomicBool::new(false),
        });
        self.ledger
            .shard(self.id)
            .insert(self.id, Arc::clone(&known));
        self.known = Some(known);
    }

    /// Who the client is, if that is known.
    pub(crate) fn known(&self) -> Option<&Arc<Known>> {
        self.known.as_ref()
    }

    /// Ends when the client has lost its right to be here.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call ends at once if it has meanwhile.
    pub(crate) async fn revoked(&self) {
        match &self.known {
            Some(known) => known.revoked.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The span in which everything about the connection is logged.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The connection is from a load balancer; its client is not known yet.
    pub(crate) fn proxied(&mut self, proxy: Option<&Endpoint>) {
        self.refusal.origin.peer = proxy.cloned();
        let proxy = proxy.map(tracing::field::display);
        self.span.record("proxy", proxy);
    }

    /// The load balancer has said who the client is.
    pub(crate) fn introduced(&mut self, peer: Option<&Endpoint>) {
        self.refusal.origin.peer = peer.cloned();
        let peer = peer.map(tracing::field::display);
        self.span.record("peer", peer);
    }

    /// `relay` is the name of the one that will move the connection's bytes.
    pub(crate) fn routed(&self, facts: &Facts, relay: &'static str) {
        self.span.record("backend", facts.backend.as_str());
        self.span.record("relay", relay);
    }

    /// Somebody has the connection, of whom the facts may know more now.
    pub(crate) fn reached(&self, facts: &Facts) {
        if let Some(identity) = &facts.backend_identity {
            let identity = tracing::field::display(identity);
            self.span.record("backend_identity", identity);
        }
    }

    pub(crate) fn close(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Only an outcome of those who are not served makes one: the reason alone was not the end.
    fn note_refusal(&mut self) {
        let Some(reason) = Reason::of(self.outcome, self.traffic.to_client.get()) else {
            return;
        };
        let (detail, cause) = self.refusal.detail.take().unwrap_or_default();
        let origin = self.refusal.origin.clone();
        let reason = detail.unwrap_or(reason);
        self.ledger.refusals.note(reason, origin, cause);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.known.is_some() {
            self.ledger.shard(self.id).remove(&self.id);
        }
        self.ledger.open.fetch_sub(1, Ordering::Relaxed);
        self.ledger.count(self.outcome);
        self.note_refusal();
        let _entered = self.span.enter();
        debug!(
            outcome = %self.outcome,
            bytes_in = self.traffic.from_client.get(),
            bytes_out = self.traffic.to_client.get(),
            seconds = self.started.elapsed().as_secs_f64(),
            "connection closed"
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_connection_is_counted_once_with_its_own_outcome() {
        let ledger = Arc::new(Ledger::default());
        let record = ledger.open(&"https".into(), None);
        assert_eq!(ledger.open_connections(), 1);
        record.close(Outcome::Idle);
        assert_eq!(ledger.open_connections(), 0);
        let ended = Outcome::ALL.map(|outcome| ledger.ended(outcome));
        assert_eq!(ended.iter().sum::<u64>(), 1);
        assert_eq!(ledger.ended(Outcome::Idle), 1);
    }

    #[test]
    fn a_panic_ends_its_connection_as_aborted() {
        let ledger = Arc::new(Ledger::default());
        let life = || {
            let _record = ledger.open(&"https".into(), None);
            panic!("in the middle of a connection");
        };
        assert!(catch_unwind(AssertUnwindSafe(life)).is_err());
        assert_eq!(ledger.open_connections(), 0);
        assert_eq!(ledger.ended(Outcome::Aborted), 1);
    }
}
