//! Logs why clients are not served: at most one line a second for each reason, with the number of
//! clients.
//!
//! ```text
//! worker ─┐
//! worker ─┼─► note: count, latest peer ─► speak, one task: a line for each reason, then a pause of a second
//! worker ─┘
//! ```
//!
//! One line for each client would let unknown clients flood the log.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::facts::Endpoint;
use crate::journal::{Event, EventKind, Journal};
use crate::outcome::Outcome;
use crate::pace::INTERVAL;

/// Why a client was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The peer is not a trusted proxy.
    Untrusted,
    /// The PROXY protocol header was missing or invalid.
    Header,
    /// The client's certificate was missing or not accepted.
    Certificate,
    /// The client did not accept our certificate or our parameters.
    ClientRefused,
    Handshake,
    HandshakeTimeout,
    NotTls,
    NoRoute,
    Denied,
    /// An operator has revoked the client's identity.
    Revoked,
    /// The value is the key of the limit under `[limits]`.
    OverLimit(&'static str),
    Shed,
    Expired,
    BackendRefused,
    BackendTimeout,
    /// The backend reset the connection before the client got a byte.
    BackendReset,
}

/// Why a client was not served, in more detail than the outcome.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Detail {
    pub reason: Option<Reason>,
    /// The cause in words.
    pub cause: Option<Box<str>>,
}

/// Who has to act.
enum Whose {
    Clients,
    Operators,
}

impl Reason {
    /// The reason that follows from an outcome alone, for a client that got `bytes` of payload from
    /// its backend.
    pub(super) fn of(outcome: Outcome, bytes: u64) -> Option<Self> {
        match outcome {
            Outcome::BackendRefused => Some(Self::BackendRefused),
            Outcome::BackendTimeout => Some(Self::BackendTimeout),
            Outcome::BackendReset if bytes == 0 => Some(Self::BackendReset),
            Outcome::HandshakeFailed => Some(Self::Handshake),
            Outcome::HandshakeTimeout => Some(Self::HandshakeTimeout),
            Outcome::NotTls => Some(Self::NotTls),
            Outcome::NoRoute => Some(Self::NoRoute),
            Outcome::Denied => Some(Self::Denied),
            Outcome::OverLimit => Some(Self::OverLimit("limits")),
            Outcome::Expired => Some(Self::Expired),
            Outcome::Done
            | Outcome::ClientReset
            | Outcome::ClientTruncated
            | Outcome::BackendReset
            | Outcome::ClientGone
            | Outcome::Idle
            | Outcome::HalfClosed
            | Outcome::Lifetime
            | Outcome::Killed
            | Outcome::Revoked
            | Outcome::Drained
            // It was served, and a line says how many were closed with it.
            | Outcome::Shed
            // The task panicked, and the panic was logged.
            | Outcome::Aborted => None,
        }
    }

    /// The reason's word in the log.
    fn word(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted_proxy",
            Self::Header => "proxy_header",
            Self::Certificate => "certificate",
            Self::ClientRefused => "client_refused",
            Self::Handshake => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotTls => "not_tls",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::BackendRefused => "backend_refused",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendReset => "backend_reset",
            Self::OverLimit(_) => "over_limit",
        }
    }

    /// The message of the log line.
    pub(super) fn text(self) -> Cow<'static, str> {
        let text = match self {
            Self::Untrusted => {
                "their address is not in `trusted_proxies`; if `peer` is a load balancer, add it"
            }
            Self::Header => {
                "their PROXY protocol header is missing or wrong; `accept_proxy_protocol` requires \
                 one"
            }
            Self::Certificate => {
                "their client certificate is missing or rejected (see `client_auth`, `client_ca`, \
                 `crl`)"
            }
            Self::ClientRefused => {
                "they aborted the TLS handshake; `cause` is their alert, such as UnknownCA from a \
                 client that does not trust our certificate"
            }
            Self::Handshake => "the TLS handshake failed; `cause` says why",
            Self::HandshakeTimeout => "the handshake took longer than timeouts.handshake",
            Self::NotTls => "their first bytes are not TLS",
            Self::NoRoute => "no [[route]] matches; `vestibule check --explain` shows why",
            Self::Denied => "a route with `deny = true` matches",
            Self::Revoked => "their identity is revoked (`vestibule revoke --list`)",
            Self::Shed => "memory is short (runtime.max_memory)",
            Self::Expired => "no worker took the connection within timeouts.backend",
            Self::BackendRefused => "no address of the backend accepted the connection",
            Self::BackendTimeout => {
                "no address of the backend accepted the connection within timeouts.backend"
            }
            Self::BackendReset => "the backend reset the connection before it sent a byte",
            Self::OverLimit(limit) => return format!("{limit} is reached").into(),
        };
        text.into()
    }

    /// Who has to act on this reason.
    fn whose(self) -> Whose {
        match self {
            Self::ClientRefused
            | Self::Handshake
            | Self::HandshakeTimeout
            | Self::NotTls
            | Self::Denied
            | Self::Revoked => Whose::Clients,
            Self::Untrusted
            | Self::Header
            | Self::Certificate
            | Self::NoRoute
            | Self::Shed
            | Self::Expired
            | Self::BackendRefused
            | Self::BackendTimeout
            | Self::BackendReset
            | Self::OverLimit(_) => Whose::Operators,
        }
    }
}

/// The addresses and names of a connection for the log line.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub listener: Arc<str>,
    pub peer: Option<Endpoint>,
}

#[derive(Debug)]
struct Tally {
    clients: u64,
    last: Origin,
    cause: Option<Box<str>>,
}

/// Counts the clients that were not served since the last log line.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// One entry for each reason, and reasons are few. The lock is held to add one; connections
    /// that are served never take it.
    tallies: Mutex<BTreeMap<Reason, Tally>>,
    /// The clients since [`Self::take_counts`], by the word of the reason.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    has_news: Notify,
}

impl Refusals {
    pub(super) fn note(&self, reason: Reason, last: Origin, cause: Option<Box<str>>) {
        *self.counts().entry(reason.word()).or_default() += 1;
        let mut tallies = self.tallies();
        let is_news = tallies.is_empty();
        let tally = tallies.entry(reason).or_insert_with(|| Tally {
            clients: 0,
            last: last.clone(),
            cause: None,
        });
        tally.clients += 1;
        (tally.last, tally.cause) = (last, cause);
        drop(tallies);
        if is_news {
            self.has_news.notify_one();
        }
    }

    /// Logs the counts until `end`, and the rest after that. Those of limits are published as well.
    pub(crate) async fn speak(&self, journal: &Journal, end: impl Future<Output = ()>) {
        let talk = async {
            loop {
                self.has_news.notified().await;
                self.say(journal);
                sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            () = end => self.say(journal),
            () = talk => {}
        }
    }

    fn say(&self, journal: &Journal) {
        let tallies = mem::take(&mut *self.tallies());
        for (reason, tally) in tallies {
            if let Reason::OverLimit(limit) = reason
                && journal.is_observed()
            {
                journal.publish(Event::now(tally.of_limit(limit)));
            }
            tally.say(reason);
        }
    }

    /// How many clients were not served since the last call, by reason.
    pub(super) fn take_counts(&self) -> BTreeMap<&'static str, u64> {
        mem::take(&mut *self.counts())
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<Reason, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn of_limit(&self, limit: &'static str) -> EventKind {
        EventKind::Limit {
            limit,
            clients: self.clients,
            listener: Arc::clone(&self.last.listener),
            peer: self.last.peer.clone(),
        }
    }

    fn say(self, reason: Reason) {
        let Self {
            clients,
            last: Origin { listener, peer },
            cause,
        } = self;
        let (text, whose) = (reason.text(), reason.whose());
        let reason = reason.word();
        let (listener, peer) = (&*listener, peer.as_ref().map(tracing::field::display));
        let cause = cause.as_deref();
        match whose {
            Whose::Operators => {
                warn!(
                    reason,
                    clients, listener, peer, cause, "clients not served: {text}"
                );
            }
            Whose::Clients => {
                info!(
                    reason,
                    clients, listener, peer, cause, "clients not served: {text}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    fn origin(port: u16) -> Origin {
        Origin {
            listener: "https".into(),
            peer: Some(Endpoint::Tcp(([192, 0, 2, 7], port).into())),
        }
    }

    #[test]
    fn reasons_are_counted_separately_with_the_latest_peer_and_cause() {
        let refusals = Refusals::default();
        for port in 1..=1000 {
            refusals.note(Reason::Handshake, origin(port), Some("why".into()));
        }
        refusals.note(Reason::OverLimit("limits.pending"), origin(1), None);
        refusals.note(Reason::OverLimit("limits.connections"), origin(1), None);
        let tallies = refusals.tallies();
        assert_eq!(tallies.len(), 3);
        let tally = &tallies[&Reason::Handshake];
        assert_eq!((tally.clients, tally.cause.as_deref()), (1000, Some("why")));
        assert_eq!(tally.last.peer, origin(1000).peer);
    }

    #[tokio::test]
    async fn a_limit_is_published_once_with_the_number_of_its_clients() {
        let refusals = Refusals::default();
        let journal = Arc::new(Journal::default());
        let mut events = journal.subscribe("test", 8);
        for port in 1..=1000 {
            let reason = Reason::OverLimit("limits.connections");
            refusals.note(reason, origin(port), None);
        }
        refusals.note(Reason::NotTls, origin(1), None);
        refusals.speak(&journal, async {}).await;
        let event = events.next_queued().expect("one event");
        let event = serde_json::to_value(&*event).expect("JSON");
        assert_eq!(
            (&event["event"], &event["limit"]),
            (&"limit".into(), &"limits.connections".into())
        );
        assert_eq!(
            (&event["clients"], &event["listener"]),
            (&1000.into(), &"https".into())
        );
        assert_eq!(event["peer"], "192.0.2.7:1000");
        assert!(events.next_queued().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_logged_at_once_and_the_next_a_second_later() {
        let refusals = Refusals::default();
        let (end, ended) = oneshot::channel::<()>();
        let journal = Arc::new(Journal::default());
        let mut events = journal.subscribe("test", 8);
        let mut speaking = Box::pin(refusals.speak(&journal, async {
            let _ = ended.await;
        }));
        let mut pass = async |time| {
            let passed = timeout(time, speaking.as_mut()).await;
            (passed.is_ok(), refusals.tallies().is_empty())
        };
        refusals.note(Reason::NotTls, origin(1), None);
        assert_eq!(pass(Duration::from_millis(1)).await, (false, true));
        refusals.note(Reason::NotTls, origin(2), None);
        assert_eq!(pass(Duration::from_millis(998)).await, (false, false));
        assert_eq!(pass(Duration::from_millis(2)).await, (false, true));
        refusals.note(Reason::NotTls, origin(3), None);
        end.send(()).expect("it listens");
        assert_eq!(pass(Duration::ZERO).await, (true, true));
        assert!(events.next_queued().is_none());
    }
}
