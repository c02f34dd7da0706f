//! The log line at the end of a connection.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::refusals::{Detail, Reason};
use crate::facts::{Facts, TlsFacts};
use crate::outcome::Outcome;
use crate::pace::INTERVAL;
use crate::traffic::Traffic;

/// Which connections have a line in the log when they end.
///
/// With both, the log says at most once a second for each reason how many clients were not served, with
/// one example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// Connections that had passed the handshake and the route, and then ended through a fault of the
    /// backend or of Vestibule. At most ten lines a second, at level `warn`; later lines say how many
    /// were left out.
    #[default]
    Failures,
    /// Every connection, at level `info`.
    Connections,
}

/// Writes one event for each connection: at the level of its mode, otherwise at `debug`.
#[derive(Debug, Default)]
pub(super) struct ClosingLog {
    mode: AccessLog,
    failures: Mutex<Allowance>,
}

/// What the line is about.
pub(super) struct Closed<'a> {
    pub facts: &'a Facts,
    pub outcome: Outcome,
    pub detail: &'a Detail,
    pub traffic: &'a Traffic,
    pub age: Duration,
}

impl ClosingLog {
    pub(super) fn new(mode: AccessLog) -> Self {
        Self {
            mode,
            failures: Mutex::default(),
        }
    }

    /// Whether each connection has a line at level `info`.
    pub(super) fn is_complete(&self) -> bool {
        self.mode == AccessLog::Connections
    }

    pub(super) fn write(&self, closed: &Closed<'_>) {
        if self.is_complete() {
            return closed.info();
        }
        if !is_failure(closed.outcome) {
            return closed.debug();
        }
        let allowed = {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.take(Instant::now())
        };
        match allowed {
            Some(left_out) => closed.warn((left_out > 0).then_some(left_out)),
            None => closed.debug(),
        }
    }
}

/// Whether the backend or Vestibule is at fault. Clients that the configuration refuses are counted by
/// reason instead: anybody could fill the log with their lines.
fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::BackendReset
        | Outcome::BackendRefused
        | Outcome::BackendTimeout
        | Outcome::Expired
        | Outcome::Aborted => true,
        Outcome::Done
        | Outcome::ClientReset
        | Outcome::ClientTruncated
        | Outcome::HandshakeFailed
        | Outcome::HandshakeTimeout
        | Outcome::NotTls
        | Outcome::NoRoute
        | Outcome::Denied
        | Outcome::OverLimit
        | Outcome::Shed
        | Outcome::ClientGone
        | Outcome::Idle
        | Outcome::HalfClosed
        | Outcome::Lifetime
        | Outcome::Killed
        | Outcome::Revoked
        | Outcome::Drained => false,
    }
}

/// Expands to an event with every field of the line. Without a span, which exists only at level
/// `debug`, nothing else says which connection it is.
macro_rules! line {
    ($level:ident, $closed:expr, $($more:tt)*) => {{
        let Closed { facts, outcome, detail, traffic, age } = $closed;
        let tls = facts.tls.as_ref();
        $level!(
            id = facts.id.short(),
            listener = facts.listener.as_deref(),
            peer = facts.peer.as_ref().map(display),
            sni = tls.and_then(|tls| tls.sni.as_deref()),
            identity = facts.identity.as_deref().map(display),
            backend = backend(facts),
            outcome = %outcome,
            bytes_in = traffic.from_client.get(),
            bytes_out = traffic.to_client.get(),
            seconds = age.as_secs_f64(),
            tls = tls.map(|tls| tls.version),
            cipher = tls.and_then(|tls| tls.cipher),
            cause = &*cause(*outcome, detail),
            $($more)*
            "connection closed"
        )
    }};
}

impl Closed<'_> {
    fn info(&self) {
        line!(info, self,);
    }

    fn warn(&self, left_out: Option<u64>) {
        line!(warn, self, left_out,);
    }

    /// The span has the names of the connection.
    fn debug(&self) {
        let tls = self.facts.tls.as_ref();
        debug!(
            sni = tls.and_then(|tls| tls.sni.as_deref()),
            outcome = %self.outcome,
            bytes_in = self.traffic.from_client.get(),
            bytes_out = self.traffic.to_client.get(),
            seconds = self.age.as_secs_f64(),
            tls = tls.map(|tls: &TlsFacts| tls.version),
            cipher = tls.and_then(|tls| tls.cipher),
            cause = &*cause(self.outcome, self.detail),
            "connection closed"
        );
    }
}

fn backend(facts: &Facts) -> Option<&str> {
    (!facts.backend.is_empty()).then_some(&*facts.backend)
}

/// The cause in words.
pub(super) fn cause(outcome: Outcome, detail: &Detail) -> Cow<'static, str> {
    // The detail is about the refusal; the connection may have ended for another cause meanwhile.
    let refusal = detail.reason.filter(|_| Reason::of(outcome, 0).is_some());
    let text = match refusal {
        Some(Reason::OverLimit(limit)) => return format!("{limit} is reached").into(),
        Some(Reason::Untrusted) => "the peer is not in trusted_proxies",
        Some(Reason::Header) => "the PROXY protocol header is missing or wrong",
        Some(Reason::Certificate) => "the client certificate is missing or was rejected",
        Some(Reason::ClientRefused) => "the client aborted the TLS handshake",
        _ => words(outcome),
    };
    match &detail.cause {
        Some(cause) => format!("{text}: {cause}").into(),
        None => text.into(),
    }
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "both sides closed",
        Outcome::ClientReset => "the client reset the connection",
        Outcome::ClientTruncated => "the client closed without close_notify",
        Outcome::BackendReset => "the backend reset the connection",
        Outcome::BackendRefused => "no address of the backend accepted the connection",
        Outcome::BackendTimeout => {
            "no address of the backend accepted the connection within timeouts.backend"
        }
        Outcome::HandshakeFailed => "the TLS handshake failed",
        Outcome::HandshakeTimeout => "the handshake took longer than timeouts.handshake",
        Outcome::NotTls => "the first bytes were not TLS",
        Outcome::NoRoute => "no [[route]] matched",
        Outcome::Denied => "a route with deny = true matched",
        Outcome::OverLimit => "a limit is reached",
        Outcome::Shed => "memory is short (runtime.max_memory)",
        Outcome::Expired => "no worker took the connection within timeouts.backend",
        Outcome::ClientGone => "the client left before a backend had the connection",
        Outcome::Idle => "no byte moved for timeouts.idle",
        Outcome::HalfClosed => "one side had closed, and nothing moved for timeouts.half_close",
        Outcome::Lifetime => "the connection reached timeouts.lifetime",
        Outcome::Killed => "an operator ended it",
        Outcome::Revoked => {
            "the identity or certificate of the client is revoked, or no route accepts it"
        }
        Outcome::Drained => "it was open at the end of a drain",
        Outcome::Aborted => "its task panicked or was dropped",
    }
}

/// Allows a number of lines a second, and counts the others.
#[derive(Debug, Default)]
struct Allowance {
    /// The second that `used` is about.
    since: Option<Instant>,
    used: u32,
    left_out: u64,
}

impl Allowance {
    /// `None` if the line is left out; otherwise how many were left out since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let is_over = |since| now.saturating_duration_since(since) >= INTERVAL;
        if self.since.is_none_or(is_over) {
            (self.since, self.used) = (Some(now), 0);
        }
        if self.used == FAILURES {
            self.left_out += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Enough to see which clients and backends are concerned. A backend that is down fails as many
/// connections as clients open.
const FAILURES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_second_have_a_line_and_the_next_line_counts_the_others() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        let lines = (0..15).filter_map(|_| allowance.take(start));
        assert_eq!(lines.collect::<Vec<_>>(), [0; 10]);
        let almost = start + INTERVAL - Duration::from_millis(1);
        assert_eq!(allowance.take(almost), None);
        assert_eq!(allowance.take(start + INTERVAL), Some(6));
        assert_eq!(allowance.take(start + INTERVAL), Some(0));
    }

    #[test]
    fn a_cause_names_the_limit_or_the_reason_and_the_detail() {
        let detail = |reason, cause: Option<&str>| Detail {
            reason,
            cause: cause.map(Into::into),
        };
        for (outcome, detail, expected) in [
            (Outcome::Done, Detail::default(), "both sides closed"),
            (
                Outcome::OverLimit,
                detail(Some(Reason::OverLimit("limits.pending")), None),
                "limits.pending is reached",
            ),
            (
                Outcome::HandshakeFailed,
                detail(Some(Reason::Certificate), Some("expired")),
                "the client certificate is missing or was rejected: expired",
            ),
            (
                Outcome::BackendRefused,
                detail(None, Some("backend \"app\"")),
                "no address of the backend accepted the connection: backend \"app\"",
            ),
        ] {
            assert_eq!(cause(outcome, &detail), expected);
        }
    }

    #[test]
    fn every_outcome_has_its_own_words() {
        let words: std::collections::BTreeSet<_> = Outcome::ALL.map(words).into();
        assert_eq!(words.len(), Outcome::ALL.len());
    }
}
