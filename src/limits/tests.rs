//! Limits are exact, also while many ask at once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::thread;

use super::shares::{ROOM, SHARDS, Shard};
use super::*;

fn limits(connections: usize, per_ip: usize, pending: usize) -> Limits {
    Limits::new(&Settings {
        connections: Some(connections),
        connections_per_ip: Some(per_ip),
        pending: Some(pending),
        ..Settings::default()
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
    assert_eq!(
        limits.now(),
        Counts {
            open: 1,
            pending: 1
        }
    );
}

#[test]
fn a_client_that_becomes_known_later_has_its_own_share() {
    let limits = limits(9, 1, 9);
    let (mut first, _slot) = limits.admit(None).expect("room");
    assert_eq!(limits.count(&mut first, ip("192.0.2.1")), Ok(()));
    let (mut second, _slot) = limits.admit(None).expect("room");
    let refused = limits.count(&mut second, ip("192.0.2.1"));
    assert_eq!(refused, Err(Exceeded::ConnectionsPerIp));
    assert_eq!(limits.count(&mut second, ip("192.0.2.2")), Ok(()));
    assert_eq!(limits.count(&mut second, None), Ok(()));
    drop(first);
    assert!(limits.admit(ip("192.0.2.1")).is_ok());
    drop(second);
    assert_eq!(counted(&limits).0, 0);
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

/// How many addresses are counted, and for how many there is memory.
fn counted(limits: &Limits) -> (usize, usize) {
    let shards = &limits.per_ip.shards;
    let shards = shards
        .iter()
        .map(|Shard(open)| open.lock().expect("no panic"));
    shards.fold((0, 0), |(length, capacity), open| {
        (length + open.len(), capacity + open.capacity())
    })
}

#[test]
fn the_table_of_addresses_is_empty_when_all_have_left() {
    let limits = limits(9_000, 9, 9_000);
    let admit = |n: u32| limits.admit(Some(IpAddr::V4(n.into()))).expect("room");
    let held: Vec<_> = (0..9_000).map(|n| admit(n / 2)).collect();
    let (length, capacity) = counted(&limits);
    assert_eq!(length, 4_500);
    assert!(capacity >= length);
    drop(held);
    let (length, capacity) = counted(&limits);
    assert_eq!(length, 0);
    assert!(capacity <= SHARDS * 8 * ROOM, "{capacity}");
}

#[test]
fn exact_under_concurrency() {
    let limits = Arc::new(limits(10, 10, 10));
    let most = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (limits, most) = (Arc::clone(&limits), Arc::clone(&most));
            thread::spawn(move || {
                for _ in 0..2_000 {
                    if let Ok(held) = limits.admit(ip("192.0.2.1")) {
                        most.fetch_max(limits.now().open, Ordering::Relaxed);
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
    assert_eq!(Counts::of(0), limits.now());
}

/// Runs `refused` on other threads for as long as `admitted` runs on this one.
fn beside(refused: impl Fn() + Sync, admitted: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    refused();
                }
            });
        }
        // Also when it fails: the scope waits for its threads.
        let result = catch_unwind(AssertUnwindSafe(admitted));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[test]
fn what_an_address_has_no_room_for_takes_no_room_from_others() {
    let limits = limits(2, 1, 9);
    let _held = limits.admit(ip("192.0.2.1")).expect("room");
    let refused = || {
        let refused = limits.admit(ip("192.0.2.1")).err();
        // The others may have taken the last place just now.
        assert!(matches!(
            refused,
            Some(Exceeded::ConnectionsPerIp | Exceeded::Connections)
        ));
    };
    beside(refused, || {
        for _ in 0..20_000 {
            drop(limits.admit(ip("192.0.2.2")).expect("the second of two"));
        }
    });
}

#[test]
fn what_may_not_be_pending_is_counted_nowhere() {
    let limits = limits(2, 2, 1);
    let _held = limits.admit(ip("192.0.2.1")).expect("room");
    let refused = || {
        let refused = limits.admit(ip("192.0.2.1")).err();
        assert_eq!(refused, Some(Exceeded::Pending));
    };
    beside(refused, || (0..20_000).for_each(|_| refused()));
}
