//! How much of each limit is used, and the most that ever was.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Counts, Limits};

/// A limit and its use at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitUsage {
    /// The key under `[limits]`.
    pub name: &'static str,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    pub used: u64,
    /// The largest value of `used` since the start.
    pub peak: u64,
}

/// The most connections at one time.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    open: AtomicU64,
    pending: AtomicU64,
}

impl Peaks {
    /// Most of the time this only reads.
    pub(super) fn note(&self, now: Counts) {
        let note = |peak: &AtomicU64, now| {
            if now > peak.load(Ordering::Relaxed) {
                peak.fetch_max(now, Ordering::Relaxed);
            }
        };
        note(&self.open, now.open);
        note(&self.pending, now.pending);
    }
}

impl Limits {
    /// The limits that all clients share.
    pub(crate) fn usage(&self) -> [LimitUsage; 3] {
        let now = self.now();
        let of = |name, most: u64, used, peak: u64| LimitUsage {
            name,
            limit: (most != u64::MAX).then_some(most),
            used,
            // Another thread may have taken a place that it has not noted yet.
            peak: peak.max(used),
        };
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (open, pending) = (get(&self.most_open), get(&self.most_pending));
        let (handshakes, peaks) = (&self.handshakes, &self.peaks);
        let (shaking, most_shaking) = handshakes.usage();
        [
            of("connections", open, now.open, get(&peaks.open)),
            of("pending", pending, now.pending, get(&peaks.pending)),
            of("handshaking", handshakes.most(), shaking, most_shaking),
        ]
    }

    /// The limits that each client has for itself, and the rates. `None` is unlimited.
    pub(crate) fn others(&self) -> [(&'static str, Option<u64>); 4] {
        let (rate, rate_per_ip) = self.rates.per_second();
        [
            ("connections_per_ip", self.per_ip.limit()),
            ("connections_per_identity", self.per_identity.limit()),
            ("handshakes_per_second", rate),
            ("handshakes_per_second_per_ip", rate_per_ip),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdmissionSettings, FirstStage};
    use super::*;

    #[test]
    fn a_peak_stays_when_the_connections_have_ended() {
        let settings = AdmissionSettings {
            connections: Some(5),
            pending: None,
            handshakes_per_second: Some(70),
            ..AdmissionSettings::default()
        };
        let limits = Limits::new(&settings);
        let admit = |first| limits.admit(None, first).expect("room");
        let open = [admit(FirstStage::Backend), admit(FirstStage::Backend)];
        let shaking = [(); 3].map(|()| admit(FirstStage::Handshake));
        limits.admit(None, FirstStage::Backend).expect_err("full");
        let is = |name, limit, used, peak| {
            let usage = *(limits.usage().iter().find(|it| it.name == name)).expect("a limit");
            let expected = LimitUsage {
                name,
                limit,
                used,
                peak,
            };
            assert_eq!(usage, expected);
        };
        is("connections", Some(5), 5, 5);
        is("pending", None, 2, 2);
        is("handshaking", Some(1024), 3, 3);
        drop((open, shaking));
        is("connections", Some(5), 0, 5);
        is("pending", None, 0, 2);
        is("handshaking", Some(1024), 0, 3);
        let others = limits.others();
        assert!(others.contains(&("handshakes_per_second", Some(70))));
        assert!(others.contains(&("connections_per_ip", Some(1000))));
        assert!(others.contains(&("handshakes_per_second_per_ip", None)));
    }
}
