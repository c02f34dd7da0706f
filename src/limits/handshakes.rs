//! Limits the handshakes in progress; at the limit, the oldest one without a byte makes room.
//!
//! Clients that open connections and send nothing take up places and cost nothing else. So one
//! client gets at most an eighth of the places, and when all are taken, a new connection gets the
//! place of the longest silent one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::shares::{Share, Shares};
use super::{Exceeded, most};

/// The handshakes of one proxy.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: AtomicU64,
    per_ip: Arc<Shares<IpAddr>>,
    /// One lock for all handshakes, held for a look-up three times in each handshake.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    now: u64,
    /// The most at one time.
    peak: u64,
    /// The number of the next handshake.
    number: u64,
    /// Handshakes without a byte yet, oldest first.
    silent: BTreeMap<u64, Arc<Notice>>,
}

/// Tells a handshake that it must make room.
#[derive(Debug, Default)]
struct Notice {
    /// Whether its place was given away. Written under the lock of the table.
    given: AtomicBool,
    wake: Notify,
}

impl Handshakes {
    pub(super) fn new(setting: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            most: most(setting).into(),
            per_ip: Shares::new(share(setting)),
            table: Mutex::default(),
        })
    }

    pub(super) fn change(&self, setting: Option<usize>) {
        self.most.store(most(setting), Ordering::Relaxed);
        self.per_ip.change(share(setting));
    }

    /// `u64::MAX` is unlimited.
    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> u64 {
        self.table().now
    }

    /// The number of handshakes now, and the most at one time.
    pub(super) fn usage(&self) -> (u64, u64) {
        let table = self.table();
        (table.now, table.peak)
    }

    /// Takes a place for a client and calls `take`. Fails if the client has its share, if no place
    /// is free and none can be made free, or if `take` fails. After a failure nothing is counted,
    /// and no other handshake was closed.
    pub(super) fn admit<T>(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        take: impl FnOnce() -> Result<T, Exceeded>,
    ) -> Result<(Handshaking, T), Exceeded> {
        let place = || self.place(take);
        let (ip, (mut place, taken)) = match ip {
            Some(ip) => self.per_ip.take(ip, Exceeded::Handshaking, place)?,
            None => (None, place()?),
        };
        place.ip = ip;
        Ok((place, taken))
    }

    fn place<T>(
        self: &Arc<Self>,
        take: impl FnOnce() -> Result<T, Exceeded>,
    ) -> Result<(Handshaking, T), Exceeded> {
        let mut table = self.table();
        let is_full = table.now >= self.most.load(Ordering::Relaxed);
        if is_full && table.silent.is_empty() {
            return Err(Exceeded::Handshaking);
        }
        let taken = take()?;
        match is_full {
            true => table.close_oldest(),
            false => table.now += 1,
        }
        table.peak = table.peak.max(table.now);
        table.number += 1;
        let notice = Arc::<Notice>::default();
        let number = table.number;
        table.silent.insert(number, Arc::clone(&notice));
        drop(table);
        let handshakes = Arc::clone(self);
        Ok((
            Handshaking {
                handshakes,
                number,
                notice,
                ip: None,
            },
            taken,
        ))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes the oldest silent handshake. The new one takes over its place in the count.
    fn close_oldest(&mut self) {
        if let Some((_, notice)) = self.silent.pop_first() {
            notice.given.store(true, Ordering::Relaxed);
            notice.wake.notify_one();
        }
    }
}

/// A client's share of the places, at least one.
fn share(setting: Option<usize>) -> Option<usize> {
    setting.map(|most| (most / SHARE).max(1))
}

/// One client may hold one in this many places.
const SHARE: usize = 8;

/// A place among the handshakes in progress. Dropping it makes room for another one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Handshaking {
    handshakes: Arc<Handshakes>,
    number: u64,
    notice: Arc<Notice>,
    ip: Option<Share<IpAddr>>,
}

impl Handshaking {
    /// The client has sent a byte, so the handshake is not closed to make room any more. Fails if
    /// it was closed just before.
    pub(crate) fn speaks(&self) -> Result<(), Exceeded> {
        let mut table = self.handshakes.table();
        table.silent.remove(&self.number);
        match self.notice.is_given() {
            true => Err(Exceeded::Handshaking),
            false => Ok(()),
        }
    }

    /// Waits until the handshake must make room. That never happens after [`speaks`](Self::speaks).
    pub(crate) async fn closed(&self) {
        self.notice.wake.notified().await;
    }

    /// Counts the handshake for its client, after the PROXY protocol header has named it.
    pub(super) fn count<T>(
        &mut self,
        ip: IpAddr,
        take: impl FnOnce() -> Result<T, Exceeded>,
    ) -> Result<T, Exceeded> {
        let per_ip = &self.handshakes.per_ip;
        let (share, taken) = per_ip.take(ip, Exceeded::Handshaking, take)?;
        self.ip = share;
        Ok(taken)
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        let mut table = self.handshakes.table();
        table.silent.remove(&self.number);
        if !self.notice.is_given() {
            table.now -= 1;
        }
    }
}

impl Notice {
    fn is_given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }
}
