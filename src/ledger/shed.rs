//! What has no room: connections that are closed at accept, and idle ones that must end.

use super::Ledger;
use super::entry::ConnectionState;
use super::refusals::Reason;
use crate::outcome::{EndCause, Outcome};

/// Why a connection is closed before any work is done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The value is the key of the limit.
    Limit(&'static str),
    Memory,
}

impl NoRoom {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Limit(_) => Outcome::OverLimit,
            Self::Memory => Outcome::Shed,
        }
    }

    /// The key of the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Limit(key) => key,
            Self::Memory => "runtime.max_memory",
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Limit(key) => Reason::OverLimit(key),
            Self::Memory => Reason::Shed,
        }
    }
}

impl Ledger {
    /// Tells `count` connections to end, those on which no byte has moved for the longest time. Handshakes
    /// stay: they have not begun to be idle, and have a short time limit. A tunnel with streams stays, because it would
    /// take all of them with it: each stream is a connection that is idle or not. Returns how many were told. Those that
    /// have ended, and wait for their peer to take the last bytes, are told as well, and do not count.
    pub(crate) fn shed(&self, count: usize) -> usize {
        use ConnectionState::{Closing, Handshaking, Relaying, Waiting};
        let open = self.index.all().into_iter();
        let served = open.filter(|entry| match entry.state() {
            Relaying | Waiting | Closing => !entry.is_carrying(),
            Handshaking => false,
        });
        let mut served: Vec<_> = served.map(|entry| (entry.traffic.last(), entry)).collect();
        served.sort_unstable_by_key(|(last, _)| *last);
        let told = served.iter().filter(|(_, entry)| entry.end(EndCause::Shed));
        told.take(count).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::facts::Facts;
    use crate::ledger::{LedgerRecord, Via};
    use crate::moment::Moment;

    fn relaying(ledger: &Arc<Ledger>) -> LedgerRecord {
        let mut record = ledger.open(Facts::new("app"), Via::Direct);
        record.reached("plain", None);
        record
    }

    fn is_told(record: &LedgerRecord) -> bool {
        !record.entry().end(EndCause::Killed)
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_been_idle_longest_end_first_and_handshakes_stay() {
        let ledger = Arc::<Ledger>::default();
        let handshaking = ledger.open(Facts::new("app"), Via::Direct);
        let mut records = Vec::new();
        for _ in 0..6 {
            advance(Duration::from_secs(1)).await;
            records.push(relaying(&ledger));
        }
        // The first one is the oldest, and is in use.
        advance(Duration::from_secs(1)).await;
        records[0].traffic().moved(Moment::now());
        assert_eq!(ledger.shed(2), 2);
        // Those that were told do not count again.
        assert_eq!(ledger.shed(1), 1);
        let told: Vec<bool> = records.iter().map(is_told).collect();
        assert_eq!(told, [false, true, true, true, false, false]);
        assert!(!is_told(&handshaking));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_idle_only_without_streams() {
        let ledger = Arc::<Ledger>::default();
        let mut tunnel = ledger.open(Facts::new(""), Via::Direct);
        tunnel.carries();
        tunnel.carries_streams(2);
        advance(Duration::from_secs(1)).await;
        let stream = relaying(&ledger);
        assert_eq!(ledger.shed(2), 1);
        assert!(is_told(&stream));
        advance(Duration::from_secs(1)).await;
        tunnel.carries_streams(1);
        let other = relaying(&ledger);
        advance(Duration::from_secs(1)).await;
        tunnel.carries_streams(0);
        assert_eq!(ledger.shed(1), 1);
        assert!(is_told(&other));
        assert_eq!(ledger.shed(1), 1);
        assert!(is_told(&tunnel));
    }

    #[tokio::test(start_paused = true)]
    async fn those_whose_peer_does_not_take_the_end_are_told_and_do_not_count() {
        let ledger = Arc::<Ledger>::default();
        let mut tunnel = ledger.open(Facts::new(""), Via::Direct);
        tunnel.carries();
        let mut ended = relaying(&ledger);
        ended.closing();
        advance(Duration::from_secs(1)).await;
        let idle = relaying(&ledger);
        advance(Duration::from_secs(1)).await;
        let busy = relaying(&ledger);
        tunnel.closing();
        assert_eq!(ledger.shed(1), 1);
        for record in [&tunnel, &ended, &idle] {
            tokio::time::timeout(Duration::ZERO, record.ended())
                .await
                .expect("told");
        }
        assert!(!is_told(&busy));
    }

    #[test]
    fn no_more_are_told_than_there_are() {
        let ledger = Arc::<Ledger>::default();
        let _records = [relaying(&ledger), relaying(&ledger)];
        assert_eq!((ledger.shed(5), ledger.shed(5)), (2, 0));
    }
}
