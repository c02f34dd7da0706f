//! The record of a connection: kept while it is open, and the one place that says how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tracing::{Span, debug, debug_span};

use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::outcome::Outcome;
use crate::traffic::Traffic;

/// Counts what is open and how what was open has ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: AtomicUsize,
    ended: [AtomicU64; Outcome::ALL.len()],
}

impl Ledger {
    /// Opens the record of a connection that was admitted.
    pub(crate) fn open(self: &Arc<Self>, listener: &str, peer: Option<&Endpoint>) -> Record {
        self.open.fetch_add(1, Ordering::Relaxed);
        let id = Id::random();
        let peer = peer.map(tracing::field::display);
        let span = debug_span!(
            "connection",
            id = id.short(),
            listener,
            peer,
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
        }
    }

    /// Counts a connection that was turned away at the door.
    pub(crate) fn refused(&self, listener: &str, peer: Option<&Endpoint>, limit: &'static str) {
        self.count(Outcome::OverLimit);
        let peer = peer.map(tracing::field::display);
        debug!(listener, peer, limit, outcome = %Outcome::OverLimit, "connection refused");
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
}

impl Record {
    /// The span in which everything about the connection is logged.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
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
}

impl Drop for Record {
    fn drop(&mut self) {
        self.ledger.open.fetch_sub(1, Ordering::Relaxed);
        self.ledger.count(self.outcome);
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_connection_is_counted_once_with_its_own_outcome() {
        let ledger = Arc::new(Ledger::default());
        let record = ledger.open("https", None);
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
            let _record = ledger.open("https", None);
            panic!("in the middle of a connection");
        };
        assert!(catch_unwind(AssertUnwindSafe(life)).is_err());
        assert_eq!(ledger.open_connections(), 0);
        assert_eq!(ledger.ended(Outcome::Aborted), 1);
    }
}
