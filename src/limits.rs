//! Admission: exact limits on open, handshaking and pending connections, also under concurrency.
//!
//! ```text
//! accept ─► Permit (total, ip)            ─► … until the connection is closed
//!         └► Handshaking (total, ip) ─► Slot (pending) ─► … until a backend has it
//! ```
//!
//! A connection that one limit refuses must not be counted by another limit, not even for a moment:
//! the other limit could then refuse a connection for which it has room. So all counts are taken
//! together or not at all. The numbers of open and of pending connections are the two halves of one
//! atomic word. The count of a client is locked meanwhile; only clients in the same shard wait for
//! that lock. The rates of [`rates`] are taken inside as well: a connection that finds no room uses
//! up no rate.

mod handshakes;
mod rates;
mod sharded;
mod shares;
mod usage;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use self::handshakes::Handshakes;
pub(crate) use self::handshakes::Handshaking;
use self::rates::Rates;
use self::shares::{Share, Shares};
use self::usage::Peaks;
use crate::identity::Identity;

/// The limits under `[limits]`: numbers at a time, or per second; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AdmissionSettings {
    pub connections: Option<usize>,
    pub connections_per_ip: Option<usize>,
    pub connections_per_identity: Option<usize>,
    pub pending: Option<usize>,
    pub handshaking: Option<usize>,
    pub handshakes_per_second: Option<usize>,
    pub handshakes_per_second_per_ip: Option<usize>,
}

impl Default for AdmissionSettings {
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
    peaks: Peaks,
    handshakes: Arc<Handshakes>,
    per_ip: Arc<Shares<IpAddr>>,
    per_identity: Arc<Shares<Identity>>,
    rates: Rates,
}

/// The first stage of an admitted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstStage {
    Handshake,
    /// The PROXY protocol header of a load balancer, which names the client.
    ProxyHeader,
    /// No handshake: the connection waits for a backend at once.
    Backend,
}

/// The place of a connection that has no backend yet.
#[derive(Debug)]
#[must_use]
pub(crate) enum Place {
    Handshaking(Box<Handshaking>),
    Pending(#[expect(dead_code, reason = "held for its Drop, never read")] Slot),
    /// It waits for none.
    None,
}

impl Limits {
    pub(crate) fn new(settings: &AdmissionSettings) -> Self {
        Self {
            most_open: most(settings.connections).into(),
            most_pending: most(settings.pending).into(),
            now: Arc::default(),
            peaks: Peaks::default(),
            handshakes: Handshakes::new(settings.handshaking),
            per_ip: Shares::new(settings.connections_per_ip),
            per_identity: Shares::new(settings.connections_per_identity),
            rates: Rates::new(settings),
        }
    }

    /// Replaces the limits. No admitted connection is closed. A connection that was admitted while
    /// the limit for each client was unlimited does not count for its client.
    pub(crate) fn change(&self, settings: &AdmissionSettings) {
        let most_open = most(settings.connections);
        self.most_open.store(most_open, Ordering::Relaxed);
        let most_pending = most(settings.pending);
        self.most_pending.store(most_pending, Ordering::Relaxed);
        self.handshakes.change(settings.handshaking);
        self.per_ip.change(settings.connections_per_ip);
        self.per_identity.change(settings.connections_per_identity);
        self.rates.change(settings);
    }

    /// Admits one more connection, or returns the limit that refuses it.
    pub(crate) fn admit(
        &self,
        ip: Option<IpAddr>,
        first: FirstStage,
    ) -> Result<(Permit, Place), Exceeded> {
        // This check takes no lock, so that a flood at the limit does not contend for one.
        self.room(self.now(), OPEN)?;
        let ip = ip.map(network);
        let take = || match first {
            FirstStage::Handshake | FirstStage::ProxyHeader => self.take_handshaking(ip, first),
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
        first: FirstStage,
    ) -> Result<(Slot, Place), Exceeded> {
        let (handshaking, open) = self.handshakes.admit(ip, || {
            self.room(self.now(), OPEN)?;
            self.begin(ip, first)?;
            self.take(OPEN, OPEN)
        })?;
        Ok((open, Place::Handshaking(Box::new(handshaking))))
    }

    /// A place among the connections that wait for a backend, after the handshake.
    pub(crate) fn wait(&self) -> Result<Slot, Exceeded> {
        self.take(PENDING, PENDING)
    }

    /// Counts an admitted connection for its client, after the PROXY protocol header has named it.
    pub(crate) fn count(
        &self,
        permit: &mut Permit,
        place: &mut Place,
        ip: Option<IpAddr>,
        first: FirstStage,
    ) -> Result<(), Exceeded> {
        let ip = ip.map(network);
        let begin = || self.begin(ip, first);
        let Some(ip) = ip else {
            return begin();
        };
        let take = || match place {
            Place::Handshaking(handshaking) => handshaking.count(ip, begin),
            Place::Pending(_) | Place::None => begin(),
        };
        let (share, ()) = self.per_ip.take(ip, Exceeded::ConnectionsPerIp, take)?;
        permit.ip = share;
        Ok(())
    }

    fn begin(&self, client: Option<IpAddr>, first: FirstStage) -> Result<(), Exceeded> {
        match first {
            FirstStage::Handshake => self.rates.take(client, Instant::now()),
            FirstStage::ProxyHeader | FirstStage::Backend => Ok(()),
        }
    }

    /// Counts one more connection for this identity, until the share is dropped.
    pub(crate) fn admit_identity(&self, identity: &Identity) -> Result<IdentityShare, Exceeded> {
        let names = Identity {
            // A renewed certificate does not change the identity, so its digest is left out.
            // Without any name, the digest is all that there is.
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

    /// Takes all of `places` or none. The slot returns those in `given` when it is dropped.
    fn take(&self, places: u64, given: u64) -> Result<Slot, Exceeded> {
        let mut now = self.now.load(Ordering::Acquire);
        loop {
            self.room(Counts::of(now), places)?;
            let next = now + places;
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.now.compare_exchange_weak(now, next, success, failure) {
                Ok(_) => {
                    self.peaks.note(Counts::of(next));
                    return Ok(Slot::new(&self.now, given));
                }
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

    /// Whether the total number of open connections is at its limit.
    pub(crate) fn is_full(&self) -> bool {
        self.now().open >= self.most_open.load(Ordering::Relaxed)
    }

    /// The number of connections that have no backend yet.
    pub(crate) fn pending(&self) -> usize {
        (self.now().pending + self.handshakes.now()) as usize
    }

    fn now(&self) -> Counts {
        Counts::of(self.now.load(Ordering::Acquire))
    }
}

/// The number of open and of pending connections, as halves of one 64-bit word. Every open
/// connection has a descriptor, and the kernel allows a process fewer of them than a half can
/// count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    open: u64,
    pending: u64,
}

/// One open connection: 1 in the lower half.
const OPEN: u64 = 1;
/// One pending connection: 1 in the upper half.
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
    /// The key under `[limits]` that the operator can change.
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

/// A place among the open connections. Dropping it makes room for another one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    _open: Slot,
    ip: Option<Share<IpAddr>>,
}

/// A place among the connections of one identity. Dropping it makes room for another one.
#[derive(Debug)]
#[must_use]
pub(crate) struct IdentityShare {
    _share: Option<Box<Share<Identity>>>,
}

/// Counts places in use, up to a maximum.
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

    /// Takes a place, or returns `None` at the maximum.
    ///
    /// This compares and swaps instead of adding first, so that a refused attempt is never counted,
    /// not even for a moment.
    pub(crate) fn take(&self) -> Option<Slot> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < self.most).then_some(used + 1)
            })
            .ok()
            .map(|_| Slot::new(&self.used, 1))
    }
}

/// A counted place. Dropping it returns the place.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    count: Arc<AtomicU64>,
    /// The amount to subtract from the count on drop.
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

/// The network that counts as one client: an IPv4 address, or an IPv6 /64. That is the smallest
/// network that a provider assigns (RFC 6177), and a client may use any address in it.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !(u64::MAX as u128))),
    }
}

#[cfg(test)]
mod tests;
