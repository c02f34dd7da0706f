//! The record of every open connection, and the one place that counts and logs how each one ended.
//!
//! ```text
//! open ─► LedgerRecord ─► (introduced, secured, routed, reached) ─► close(outcome) ─► a count, a line
//!          └─ Entry, shared: facts, state, bytes; found by id and by name; ended with a cause
//! ```

mod access_log;
mod entry;
mod filter;
mod idle;
mod index;
mod minute;
mod record;
mod refusals;
mod shed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tracing::{debug, info};

pub use self::access_log::AccessLog;
use self::access_log::ClosingLog;
pub use self::entry::ConnectionState;
pub(crate) use self::entry::Entry;
pub use self::filter::{ConnectionFilter, OpenConnection};
use self::idle::LastEnd;
use self::index::Index;
use self::minute::Totals;
pub(crate) use self::record::{LedgerRecord, Via};
use self::refusals::Origin;
pub(crate) use self::refusals::{Detail, Reason, Refusals};
pub(crate) use self::shed::NoRoom;
use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::journal::{ConnectionEnd, Event, EventKind, Journal};
use crate::metrics::Metrics;
use crate::outcome::{EndCause, Outcome};
use crate::time_slice::{TimeSlice, in_slices};

/// All open connections, and the number of ended ones by outcome.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: AtomicUsize,
    ended: [AtomicU64; Outcome::ALL.len()],
    pub refusals: Refusals,
    /// Where the start and the end of each connection are published.
    pub journal: Arc<Journal>,
    pub metrics: Metrics,
    index: Index,
    /// Whether every connection must end, including those that open from now on.
    is_cut: AtomicBool,
    closing_log: ClosingLog,
    totals: Totals,
    last_end: LastEnd,
}

impl Ledger {
    /// Logs the ends of these connections.
    pub(crate) fn with_log_of(mut self, connections: AccessLog) -> Self {
        self.closing_log = ClosingLog::new(connections);
        self
    }

    /// Opens the record of a connection that was admitted.
    pub(crate) fn open(self: &Arc<Self>, facts: Facts, via: Via) -> LedgerRecord {
        let others = self.open.fetch_add(1, Ordering::Relaxed);
        self.totals.opened(others + 1);
        let entry = Arc::new(Entry::new(facts));
        self.index.insert(&entry);
        // [`Ledger::cut`] sets the flag before it visits the entries, so a new entry is either
        // visited or sees the flag.
        if self.is_cut.load(Ordering::Relaxed) {
            entry.end(EndCause::Drained);
        }
        LedgerRecord::new(entry, Arc::clone(self), via)
    }

    /// The open connections that match. A filter without an id and without any indexed name looks
    /// at all of them.
    pub(crate) fn find(&self, filter: &ConnectionFilter) -> Vec<Arc<Entry>> {
        let mut found = match (filter.wanted_id(), filter.rarest_name()) {
            (Some(id), _) => self.index.get(id).into_iter().collect(),
            (None, Some(name)) => self.index.named(name),
            (None, None) => self.index.all(),
        };
        // Facts are behind a lock, and a list of all needs none of them.
        if !filter.is_all() {
            let mut slice = TimeSlice::begin();
            found.retain(|entry| {
                slice.step();
                filter.matches(entry)
            });
        }
        found
    }

    /// All open connections.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.index.all()
    }

    /// A snapshot of the open connections that match.
    pub(crate) fn list(&self, filter: &ConnectionFilter) -> Vec<OpenConnection> {
        let found = self.find(filter);
        found
            .iter()
            .map(|entry| OpenConnection::of(entry))
            .collect()
    }

    /// Ends the open connections that match. Returns how many of them had not been told to end
    /// before.
    pub(crate) fn kill(&self, filter: &ConnectionFilter) -> usize {
        let found = self.find(filter);
        let told = in_slices(&found).filter(|entry| entry.end(EndCause::Killed));
        told.count()
    }

    /// Ends the connections of a backend that are at one of these addresses. Returns how many of them had
    /// not been told to end before.
    pub(crate) fn end_at(&self, backend: &str, addresses: &[u32]) -> usize {
        let found = self.find(&ConnectionFilter::all().backend(backend));
        let there = found.iter().filter(|it| addresses.contains(&it.address()));
        there.filter(|it| it.end(EndCause::AddressDown)).count()
    }

    /// Ends every connection that is open or opens later.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        for entry in self.index.all() {
            entry.end(EndCause::Drained);
        }
    }

    /// Counts a connection that was closed before it had a record.
    pub(crate) fn refused(&self, listener: &Arc<str>, peer: Option<&Endpoint>, no_room: NoRoom) {
        let outcome = no_room.outcome();
        self.last_end.note();
        self.count(outcome);
        self.metrics.listener(listener).refused(outcome);
        let origin = Origin {
            listener: Arc::clone(listener),
            peer: peer.cloned(),
        };
        self.refusals.note(no_room.reason(), origin, None);
        self.publish_refused(listener, peer, no_room);
        let limit = no_room.key();
        let (listener, peer) = (&**listener, peer.map(tracing::field::display));
        match self.closing_log.is_complete() {
            true => {
                info!(listener, peer, limit, %outcome, "connection refused");
            }
            false => {
                debug!(listener, peer, limit, %outcome, "connection refused");
            }
        }
    }

    /// See [`Refusals::speak`].
    pub(crate) async fn say_refusals(&self, end: impl Future<Output = ()>) {
        self.refusals.speak(&self.journal, end).await;
    }

    /// Records a connection from a peer that is not a trusted proxy, and closes the record.
    pub(crate) fn denied(self: &Arc<Self>, facts: Facts) {
        let record = self.open(facts, Via::Proxy);
        record
            .span()
            .in_scope(|| debug!("peer is not in trusted_proxies"));
        let detail = Detail {
            reason: Some(Reason::Untrusted),
            cause: None,
        };
        record.close(Outcome::Denied, detail);
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize].load(Ordering::Relaxed)
    }

    /// The number of connections that were accepted so far, with those that were closed at a limit.
    pub(crate) fn accepted(&self) -> u64 {
        let ended: u64 = self.ended.iter().map(|it| it.load(Ordering::Relaxed)).sum();
        ended + self.open_connections() as u64
    }

    fn publish_refused(&self, listener: &Arc<str>, peer: Option<&Endpoint>, no_room: NoRoom) {
        if !self.journal.is_observed() {
            return;
        }
        let mut facts = Facts::of(Id::random());
        facts.listener = Some(Arc::clone(listener));
        facts.peer = peer.cloned();
        self.journal
            .publish(Event::now(EventKind::Refuse(ConnectionEnd {
                outcome: no_room.outcome(),
                cause: no_room.reason().text().into(),
                bytes_in: 0,
                bytes_out: 0,
                seconds: 0.0,
                facts: Arc::new(facts),
            })));
    }

    fn close_one(&self, outcome: Outcome) {
        self.last_end.note();
        self.open.fetch_sub(1, Ordering::Release);
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        self.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
