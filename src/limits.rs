//! Admission: how many connections may be open, shaking hands and pending, exact under concurrency.
//!
//! ```text
//! accept ─► Permit (total, ip)            ─► … until the connection is closed
//!        └► Handshaking (total, ip) ─► Slot (pending) ─► … until a backend has it
//! ```
//!
//! A connection that one limit refuses must not be counted by another even for a moment, or it
//! would refuse one that had room. So the counts are taken together or not at all: those of the open
//! and of the pending ones are halves of one word, and a client's own stands still meanwhile, under
//! a lock that only clients of its shard would wait for. The rates of [`rates`] come in between:
//! who finds no room takes nothing from them.

mod handshakes;
mod rates;
mod sharded;
mod shares;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use self::handshakes::Handshakes;
pub(crate) use self::handshakes::Handshaking;
use self::rates::Rates;
use self::shares::{Share, Shares};
use crate::identity::Identity;

/// The most that may be at a time, or begin in a second; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitSettings {
    pub connections: Option<usize>,
    pub connections_per_ip: Option<usize>,
    pub connections_per_identity: Option<usize>,
    pub pending: Option<usize>,
    pub handshaking: Option<usize>,
    pub handshakes_per_second: Option<usize>,
    pub handshakes_per_second_per_ip: Option<usize>,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            connections: Some(10_000),
            connections_per_ip: Some(1_000),
            connections_per_identity: Some(1_000),
            pending: Some(1_024),
            handshaking: Some(1_024),
            handshakes_per_second: None,
            handshakes_per_second_per_ip: None,
        }
    }
}

/// The limits of one proxy, shared by its workers.
#[derive(Debug)]
pub(crate) struct Limits {
    most_open: AtomicU64,
    most_pending: AtomicU64,
    now: Arc<AtomicU64>,
    handshakes: Arc<Handshakes>,
    per_ip: Arc<Shares<IpAddr>>,
    per_identity: Arc<Shares<Identity>>,
    rates: Rates,
}

/// What a connection that is let in begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstStage {
    Handshake,
    /// Of a load balancer, which says whose connection it is.
    ProxyHeader,
    /// It waits for a backend at once.
    Backend,
}

/// What a connection that no backend has yet has a place among.
#[derive(Debug)]
#[must_use]
pub(crate) enum Place {
    Handshaking(Box<Handshaking>),
    Pending(#[expect(dead_code, reason = "a place is kept, and not looked at")] Slot),
}

impl Limits {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        Self {
            most_open: most(settings.connections).into(),
            most_pending: most(settings.pending).into(),
            now: Arc::default(),
            handshakes: Handshakes::new(settings.handshaking),
            per_ip: Shares::new(settings.connections_per_ip),
            per_identity: Shares::new(settings.connections_per_identity),
            rates: Rates::new(settings),
        }
    }

    /// Changes what may be from now on. Nobody who was admitted has to go; who was admitted while
    /// a client's share was unlimited is not counted in it.
    pub(crate) fn change(&self, settings: &LimitSettings) {
        let most_open = most(settings.connections);
        self.most_open.store(most_open, Ordering::Relaxed);
        let most_pending = most(settings.pending);
        self.most_pending.store(most_pending, Ordering::Relaxed);
        self.handshakes.change(settings.handshaking);
        self.per_ip.change(settings.connections_per_ip);
        self.per_identity.change(settings.connections_per_identity);
        self.rates.change(settings);
    }

    /// Admits one more connection, or says which limit stands in its way.
    pub(crate) fn admit(
        &self,
        ip: Option<IpAddr>,
        begins: FirstStage,
    ) -> Result<(Permit, Place), Exceeded> {
        // Known without the lock, so that a flood at the limit does not meet there.
        self.room(self.now(), OPEN)?;
        let ip = ip.map(network);
        let take = || match begins {
            FirstStage::Handshake | FirstStage::ProxyHeader => self.take_handshaking(ip, begins),
            FirstStage::Backend => {
                let open = self.take(OPEN + PENDING, OPEN)?;
                Ok((open, Place::Pending(Slot::new(&self.now, PENDING))))
            }
        };
        let (ip, (open, place)) = match ip {
            Some(ip) => self.per_ip.take(ip, Exceeded::ConnectionsPerIp, take)?,
            None => (None, take()?),
        };
        let permit = Permit { _open: open, ip };
        Ok((permit, place))
    }

    fn take_handshaking(
        &self,
        ip: Option<IpAddr>,
        begins: FirstStage,
    ) -> Result<(Slot, Place), Exceeded> {
        let (handshaking, open) = self.handshakes.admit(ip, || {
            self.room(self.now(), OPEN)?;
            self.begin(ip, begins)?;
            self.take(OPEN, OPEN)
        })?;
        Ok((open, Place::Handshaking(Box::new(handshaking))))
    }

    /// A place among those that wait for a backend, for a connection whose handshake is over.
    pub(crate) fn wait(&self) -> Result<Slot, Exceeded> {
        self.take(PENDING, PENDING)
    }

    /// Counts an admitted connection for its client, of whom a load balancer told only now.
    pub(crate) fn count(
        &self,
        permit: &mut Permit,
        place: &mut Place,
        ip: Option<IpAddr>,
        begins: FirstStage,
    ) -> Result<(), Exceeded> {
        let ip = ip.map(network);
        let begin = || self.begin(ip, begins);
        let Some(ip) = ip else {
            return begin();
        };
        let take = || match place {
            Place::Handshaking(handshaking) => handshaking.count(ip, begin),
            Place::Pending(_) => begin(),
        };
        let (share, ()) = self.per_ip.take(ip, Exceeded::ConnectionsPerIp, take)?;
        permit.ip = share;
        Ok(())
    }

    fn begin(&self, client: Option<IpAddr>, begins: FirstStage) -> Result<(), Exceeded> {
        match begins {
            FirstStage::Handshake => self.rates.take(client, Instant::now()),
            FirstStage::ProxyHeader | FirstStage::Backend => Ok(()),
        }
    }

    /// Admits one more connection of this client, for as long as the share is kept.
    pub(crate) fn admit_identity(&self, identity: &Identity) -> Result<IdentityShare, Exceeded> {
        let names = Identity {
            // A new certificate makes nobody another; but who has no name is known by nothing else.
            sha256: match identity.is_nameless() {
                true => identity.sha256.clone(),
                false => String::new(),
            },
            ..identity.clone()
        };
        let exceeded = Exceeded::ConnectionsPerIdentity;
        let (share, ()) = self.per_identity.take(names, exceeded, || Ok(()))?;
        Ok(IdentityShare {
            _share: share.map(Box::new),
        })
    }

    /// All of these places or none; the slot is for those of them that are `given`.
    fn take(&self, places: u64, given: u64) -> Result<Slot, Exceeded> {
        let mut now = self.now.load(Ordering::Acquire);
        loop {
            self.room(Counts::of(now), places)?;
            let next = now + places;
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.now.compare_exchange_weak(now, next, success, failure) {
                Ok(_) => return Ok(Slot::new(&self.now, given)),
                Err(meanwhile) => now = meanwhile,
            }
        }
    }

    fn room(&self, now: Counts, places: u64) -> Result<(), Exceeded> {
        let wanted = Counts::of(places);
        if wanted.open > 0 && now.open >= self.most_open.load(Ordering::Relaxed) {
            return Err(Exceeded::Connections);
        }
        if wanted.pending > 0 && now.pending >= self.most_pending.load(Ordering::Relaxed) {
            return Err(Exceeded::Pending);
        }
        Ok(())
    }

    /// Whether the next connection would be refused for the total alone.
    pub(crate) fn is_full(&self) -> bool {
        self.now().open >= self.most_open.load(Ordering::Relaxed)
    }

    /// Connections that no backend has yet.
    pub(crate) fn pending(&self) -> usize {
        (self.now().pending + self.handshakes.now()) as usize
    }

    fn now(&self) -> Counts {
        Counts::of(self.now.load(Ordering::Acquire))
    }
}

/// What every connection has a place in. The two are halves of one word; an open connection has a
/// descriptor, of which the kernel gives a process fewer than a half can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    open: u64,
    pending: u64,
}

/// One place in the lower half.
const OPEN: u64 = 1;
/// One place in the upper half.
const PENDING: u64 = 1 << 32;

impl Counts {
    const fn of(word: u64) -> Self {
        Self {
            open: word % PENDING,
            pending: word / PENDING,
        }
    }
}

fn most(setting: Option<usize>) -> u64 {
    setting.map_or(u64::MAX, |most| most as u64)
}

/// The limit that refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Connections,
    ConnectionsPerIp,
    ConnectionsPerIdentity,
    Pending,
    Handshaking,
    Handshakes,
    HandshakesPerIp,
}

impl Exceeded {
    /// The key under `[limits]` that an operator would change.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::ConnectionsPerIp => "limits.connections_per_ip",
            Self::ConnectionsPerIdentity => "limits.connections_per_identity",
            Self::Pending => "limits.pending",
            Self::Handshaking => "limits.handshaking",
            Self::Handshakes => "limits.handshakes_per_second",
            Self::HandshakesPerIp => "limits.handshakes_per_second_per_ip",
        }
    }
}

/// The right to be open. Dropping it makes room for another connection.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    _open: Slot,
    ip: Option<Share<IpAddr>>,
}

/// A client's place among its connections. Dropping it makes room for another one of them.
#[derive(Debug)]
#[must_use]
pub(crate) struct IdentityShare {
    _share: Option<Box<Share<Identity>>>,
}

/// Counts what is in use, up to a most.
#[derive(Debug)]
pub(crate) struct Gauge {
    used: Arc<AtomicU64>,
    most: u64,
}

impl Gauge {
    pub(crate) fn new(setting: Option<usize>) -> Self {
        Self {
            used: Arc::default(),
            most: most(setting),
        }
    }

    /// One more, or `None` when the most is in use.
    ///
    /// Compare and swap, not add and look: an attempt that is refused must not be counted even for
    /// a moment.
    pub(crate) fn take(&self) -> Option<Slot> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < self.most).then_some(used + 1)
            })
            .ok()
            .map(|_| Slot::new(&self.used, 1))
    }
}

/// One place that is counted. Dropping it gives the place back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    count: Arc<AtomicU64>,
    /// What the place is worth in the count.
    place: u64,
}

impl Slot {
    fn new(count: &Arc<AtomicU64>, place: u64) -> Self {
        Self {
            count: Arc::clone(count),
            place,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.count.fetch_sub(self.place, Ordering::AcqRel);
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, the smallest network that a
/// provider hands out (RFC 6177), within which a client may choose any address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !(u64::MAX as u128))),
    }
}

#[cfg(test)]
mod tests;
