//! How many may be shaking hands, and who makes room: the oldest that has not sent a byte.
//!
//! Whoever opens connections and says nothing costs nothing but the places of others. So one client has an
//! eighth of them at most, and when all are taken a newcomer gets that of the longest silence.

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
    /// One lock for all, held for a look-up: three times in a handshake.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    now: u64,
    /// Of the next one.
    number: u64,
    /// The oldest first.
    silent: BTreeMap<u64, Arc<Notice>>,
}

/// That a handshake has to go.
#[derive(Debug, Default)]
struct Notice {
    /// Set under the lock of the table.
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

    pub(super) fn now(&self) -> u64 {
        self.table().now
    }

    /// A place for a client, if it has room or somebody can make it, and `take` succeeds; nothing is
    /// counted, and nobody has to go, otherwise.
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
    /// Its place is the newcomer's now.
    fn close_oldest(&mut self) {
        if let Some((_, notice)) = self.silent.pop_first() {
            notice.given.store(true, Ordering::Relaxed);
            notice.wake.notify_one();
        }
    }
}

/// At least one.
fn share(setting: Option<usize>) -> Option<usize> {
    setting.map(|most| (most / SHARE).max(1))
}

/// What one client may hold of the places is one in so many.
const SHARE: usize = 8;

/// A place among the handshakes. Dropping it makes room for another one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Handshaking {
    handshakes: Arc<Handshakes>,
    number: u64,
    notice: Arc<Notice>,
    ip: Option<Share<IpAddr>>,
}

impl Handshaking {
    /// The client has sent a byte: it is nobody's to close. An error if it has been closed just before.
    pub(crate) fn speaks(&self) -> Result<(), Exceeded> {
        let mut table = self.handshakes.table();
        table.silent.remove(&self.number);
        match self.notice.is_given() {
            true => Err(Exceeded::Handshaking),
            false => Ok(()),
        }
    }

    /// Ends when it has to make room, which it does not once it [`speaks`](Self::speaks).
    pub(crate) async fn closed(&self) {
        self.notice.wake.notified().await;
    }

    /// Counts it for its client, of whom a load balancer told only now.
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
