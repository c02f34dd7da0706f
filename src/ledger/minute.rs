//! The log line of a minute: what has moved since the last one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::Ledger;
use crate::time_slice::in_slices;

/// Counts since the start that nothing else needs.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// The most open connections since the last line.
    peak: AtomicUsize,
    handshakes: AtomicU64,
    resumed: AtomicU64,
}

impl Totals {
    pub(super) fn opened(&self, open: usize) {
        // Most connections are below the peak, and only read it.
        if open > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(open, Ordering::Relaxed);
        }
    }

    pub(super) fn secured(&self, is_resumed: bool) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        if is_resumed {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts since the start, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub accepted: u64,
    ended: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub handshakes: u64,
    resumed: u64,
}

/// What has moved in a minute.
#[derive(Debug, PartialEq)]
struct Minute {
    open: usize,
    /// The most open connections.
    peak: usize,
    /// Clients that were not served, by reason.
    refused: BTreeMap<&'static str, u64>,
    moved: Reading,
}

impl Ledger {
    /// Logs a line each minute until `end`, except for minutes in which nothing has moved.
    pub(crate) async fn log_minutes(&self, end: impl Future<Output = ()>) {
        self.each_minute(end, Minute::say).await;
    }

    async fn each_minute(&self, end: impl Future<Output = ()>, mut say: impl FnMut(Minute)) {
        let minutes = async {
            // A proxy starts with nothing.
            let mut last = Reading::default();
            let mut next = Instant::now();
            loop {
                next += MINUTE;
                sleep_until(next).await;
                let minute = self.minute(&mut last);
                minute.into_iter().for_each(&mut say);
            }
        };
        tokio::select! {
            biased;
            () = end => {}
            () = minutes => {}
        }
    }

    fn minute(&self, last: &mut Reading) -> Option<Minute> {
        let refused = self.refusals.take_counts();
        let now = self.reading();
        let moved = now.since(last);
        *last = now;
        if refused.is_empty() && moved == Reading::default() {
            return None;
        }
        let open = self.open_connections();
        let peak = self.totals.peak.swap(open, Ordering::Relaxed);
        Some(Minute {
            open,
            peak: peak.max(open),
            refused,
            moved,
        })
    }

    /// Looks at all open connections for their bytes: well under a microsecond for each.
    pub(crate) fn reading(&self) -> Reading {
        let ended = self.ended.iter().map(|it| it.load(Ordering::Relaxed)).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut reading = Reading {
            accepted: self.accepted(),
            ended,
            handshakes: count(&self.totals.handshakes),
            resumed: count(&self.totals.resumed),
            ..Reading::default()
        };
        for (_, listener) in self.metrics.listeners() {
            let [bytes_in, bytes_out] = listener.ended_bytes();
            reading.bytes_in += bytes_in;
            reading.bytes_out += bytes_out;
        }
        for entry in in_slices(self.index.all()) {
            reading.bytes_in += entry.traffic.from_client.get();
            reading.bytes_out += entry.traffic.to_client.get();
        }
        reading
    }
}

impl Reading {
    /// A connection that ends during a reading may be missing in it, and then counts in the next one.
    fn since(&self, last: &Self) -> Self {
        Self {
            accepted: self.accepted.saturating_sub(last.accepted),
            ended: self.ended.saturating_sub(last.ended),
            bytes_in: self.bytes_in.saturating_sub(last.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(last.bytes_out),
            handshakes: self.handshakes.saturating_sub(last.handshakes),
            resumed: self.resumed.saturating_sub(last.resumed),
        }
    }
}

impl Minute {
    fn say(self) {
        let Self {
            open,
            peak,
            refused,
            moved,
        } = self;
        let reasons = (!refused.is_empty()).then(|| words(&refused));
        info!(
            open,
            peak,
            accepted = moved.accepted,
            ended = moved.ended,
            refused = refused.values().sum::<u64>(),
            reasons,
            bytes_in = moved.bytes_in,
            bytes_out = moved.bytes_out,
            handshakes = moved.handshakes,
            resumed = moved.resumed,
            "the last minute"
        );
    }
}

/// For example `no_route=3 not_tls=12`.
fn words(refused: &BTreeMap<&'static str, u64>) -> String {
    refused
        .iter()
        .fold(String::new(), |mut all, (reason, clients)| {
            let space = if all.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(all, "{space}{reason}={clients}");
            all
        })
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::facts::{Facts, TlsFacts};
    use crate::ledger::{Detail, LedgerRecord, NoRoom, Via};
    use crate::outcome::Outcome;

    fn open(ledger: &Arc<Ledger>) -> LedgerRecord {
        ledger.open(Facts::new("app"), Via::Direct)
    }

    #[test]
    fn a_minute_has_what_moved_in_it_and_nothing_from_before() {
        let ledger = Arc::new(Ledger::default());
        let mut last = ledger.reading();
        let mut records: Vec<LedgerRecord> = (0..3).map(|_| open(&ledger)).collect();
        for (record, resumed) in records.iter_mut().zip([true, false]) {
            record.secured(TlsFacts {
                resumed,
                ..TlsFacts::default()
            });
        }
        records[0].traffic().from_client.add(100);
        records[1].traffic().to_client.add(20);
        records.remove(0).close(Outcome::Done, Detail::default());
        ledger.refused(&"https".into(), None, NoRoom::Limit("limits.connections"));
        let first = ledger.minute(&mut last).expect("much has moved");
        assert_eq!((first.open, first.peak), (2, 3));
        assert_eq!(first.refused, BTreeMap::from([("over_limit", 1)]));
        let expected = Reading {
            accepted: 4,
            ended: 2,
            bytes_in: 100,
            bytes_out: 20,
            handshakes: 2,
            resumed: 1,
        };
        assert_eq!(first.moved, expected);

        assert_eq!(ledger.minute(&mut last), None);
        records[0].traffic().to_client.add(5);
        let second = ledger.minute(&mut last).expect("bytes");
        assert_eq!((second.open, second.peak), (2, 2));
        let expected = Reading {
            bytes_out: 5,
            ..Reading::default()
        };
        assert_eq!(second.moved, expected);
        records.remove(0).close(Outcome::NoRoute, Detail::default());
        let third = ledger.minute(&mut last).expect("an end");
        assert_eq!((third.moved.ended, third.moved.bytes_out), (1, 0));
        assert_eq!(words(&third.refused), "no_route=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_once_a_minute_and_not_for_a_minute_without_traffic() {
        let ledger = Arc::new(Ledger::default());
        let said = Mutex::new(0);
        let (end, ended) = oneshot::channel::<()>();
        let end_of_it = async {
            let _ = ended.await;
        };
        let lines = || *said.lock().expect("no panic");
        let mut speaking =
            Box::pin(ledger.each_minute(end_of_it, |_| *said.lock().expect("no panic") += 1));
        drop(open(&ledger));
        let mut pass = async |seconds| {
            let time = Duration::from_secs(seconds);
            timeout(time, speaking.as_mut()).await.is_ok()
        };
        assert!(!pass(59).await);
        assert_eq!(lines(), 0);
        assert!(!pass(2).await);
        assert_eq!(lines(), 1);
        assert!(!pass(300).await);
        assert_eq!(lines(), 1);
        drop(open(&ledger));
        assert!(!pass(60).await);
        assert_eq!(lines(), 2);
        end.send(()).expect("it listens");
        assert!(pass(1).await);
    }
}
