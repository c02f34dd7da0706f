//! Admission: how many connections may be open and pending, exact under concurrency.
//!
//! ```text
//! accept ─► Permit (total, ip) ─► … until the connection is closed
//!        └► Slot (pending)     ─► … until a backend has it
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The most that may be at a time; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub connections: Option<usize>,
    pub connections_per_ip: Option<usize>,
    pub pending: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: Some(10_000),
            connections_per_ip: Some(1_000),
            pending: Some(1_024),
        }
    }
}

/// The limits of one proxy, shared by its workers.
#[derive(Debug)]
pub(crate) struct Limits {
    open: Arc<Gauge>,
    pending: Arc<Gauge>,
    per_ip: Arc<PerIp>,
    /// One is admitted at a time: a connection that one limit refuses must not be counted by
    /// another even for a moment, or it would refuse one that had room.
    door: Mutex<()>,
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            open: Gauge::new(settings.connections),
            pending: Gauge::new(settings.pending),
            per_ip: Arc::new(PerIp {
                most: settings.connections_per_ip,
                open: Mutex::default(),
            }),
            door: Mutex::default(),
        }
    }

    /// Admits one more connection, or says which limit stands in its way.
    pub(crate) fn admit(&self, ip: Option<IpAddr>) -> Result<(Permit, Slot), Exceeded> {
        let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.take().ok_or(Exceeded::Connections)?;
        let ip = match ip {
            Some(ip) => Some(self.per_ip.take(ip).ok_or(Exceeded::ConnectionsPerIp)?),
            None => None,
        };
        let pending = self.pending.take().ok_or(Exceeded::Pending)?;
        Ok((
            Permit {
                _open: open,
                _ip: ip,
            },
            pending,
        ))
    }

    /// Whether the next connection would be refused for the total alone.
    pub(crate) fn is_full(&self) -> bool {
        self.open.most.is_some_and(|most| self.open.used() >= most)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.used()
    }
}

/// The limit that refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Connections,
    ConnectionsPerIp,
    Pending,
}

impl Exceeded {
    /// The key under `[limits]` that an operator would change.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::ConnectionsPerIp => "limits.connections_per_ip",
            Self::Pending => "limits.pending",
        }
    }
}

/// The right to be open. Dropping it makes room for another connection.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    _open: Slot,
    _ip: Option<IpSlot>,
}

/// Counts what is in use, up to a most.
#[derive(Debug)]
pub(crate) struct Gauge {
    used: AtomicUsize,
    most: Option<usize>,
}

impl Gauge {
    pub(crate) fn new(most: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
        })
    }

    /// One more, or `None` when the most is in use.
    ///
    /// Compare and swap, not add and look: an attempt that is refused must not be counted even for
    /// a moment.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let most = self.most.unwrap_or(usize::MAX);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < most).then_some(used + 1)
            })
            .ok()
            .map(|_| Slot(Arc::clone(self)))
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// One place under a [`Gauge`]. Dropping it gives the place back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot(Arc<Gauge>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct PerIp {
    most: Option<usize>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl PerIp {
    fn take(self: &Arc<Self>, ip: IpAddr) -> Option<IpSlot> {
        let network = network(ip);
        if let Some(most) = self.most {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let used = open.entry(network).or_default();
            // An entry exists only while it counts something, and a limit is never 0.
            if *used >= most {
                return None;
            }
            *used += 1;
        }
        Some(IpSlot {
            table: Arc::clone(self),
            network,
        })
    }
}

#[derive(Debug)]
struct IpSlot {
    table: Arc<PerIp>,
    network: IpAddr,
}

impl Drop for IpSlot {
    fn drop(&mut self) {
        if self.table.most.is_none() {
            return;
        }
        let mut open = self
            .table
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.network) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
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
mod tests {
    use std::thread;

    use super::*;

    fn limits(connections: usize, per_ip: usize, pending: usize) -> Limits {
        Limits::new(&Settings {
            connections: Some(connections),
            connections_per_ip: Some(per_ip),
            pending: Some(pending),
        })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an IP address"))
    }

    #[test]
    fn n_means_n_and_an_end_makes_room() {
        let limits = limits(2, 9, 9);
        let first = limits.admit(None).expect("room");
        let _second = limits.admit(None).expect("room");
        assert_eq!(limits.admit(None).err(), Some(Exceeded::Connections));
        drop(first);
        assert!(limits.admit(None).is_ok());
    }

    #[test]
    fn a_refusal_leaves_nothing_behind() {
        let limits = limits(9, 1, 9);
        let _held = limits.admit(ip("192.0.2.1")).expect("room");
        for _ in 0..20 {
            assert_eq!(
                limits.admit(ip("192.0.2.1")).err(),
                Some(Exceeded::ConnectionsPerIp)
            );
        }
        assert_eq!(limits.open.used(), 1);
        assert_eq!(limits.pending(), 1);
    }

    #[test]
    fn pending_ends_before_the_connection_does() {
        let limits = limits(9, 9, 1);
        let (_permit, pending) = limits.admit(None).expect("room");
        assert_eq!(limits.admit(None).err(), Some(Exceeded::Pending));
        drop(pending);
        assert!(limits.admit(None).is_ok());
    }

    #[test]
    fn one_ipv6_client_is_a_64() {
        let limits = limits(9, 1, 9);
        let _held = limits.admit(ip("2001:db8:0:1::1")).expect("room");
        assert!(limits.admit(ip("2001:db8:0:1:ffff::2")).is_err());
        assert!(limits.admit(ip("2001:db8:0:2::1")).is_ok());
        let _mapped = limits.admit(ip("::ffff:192.0.2.1")).expect("room");
        assert!(limits.admit(ip("192.0.2.1")).is_err());
        assert!(limits.admit(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn the_table_of_addresses_is_empty_when_all_have_left() {
        let limits = limits(9, 9, 9);
        let held: Vec<_> = (0..5).map(|_| limits.admit(ip("192.0.2.1"))).collect();
        drop(held);
        assert!(limits.per_ip.open.lock().expect("no panic").is_empty());
    }

    #[test]
    fn exact_under_concurrency() {
        let limits = Arc::new(limits(10, 10, 10));
        let most = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (limits, most) = (Arc::clone(&limits), Arc::clone(&most));
                thread::spawn(move || {
                    for _ in 0..2_000 {
                        if let Ok(held) = limits.admit(ip("192.0.2.1")) {
                            most.fetch_max(limits.open.used(), Ordering::Relaxed);
                            drop(held);
                        }
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
        assert!(most.load(Ordering::Relaxed) <= 10);
        assert_eq!((limits.open.used(), limits.pending()), (0, 0));
    }
}
