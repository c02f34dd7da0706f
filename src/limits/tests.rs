//! Limits are exact, also under concurrency.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::thread;

use super::sharded::{ROOM, SHARDS};
use super::*;

fn limits(connections: usize, per_ip: usize, pending: usize) -> Limits {
    Limits::new(&AdmissionSettings {
        connections: Some(connections),
        connections_per_ip: Some(per_ip),
        pending: Some(pending),
        ..AdmissionSettings::default()
    })
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an IP address"))
}

#[test]
fn n_means_n_and_an_end_makes_room() {
    let limits = limits(2, 9, 9);
    let first = limits.admit(None, FirstStage::Backend).expect("room");
    let _second = limits.admit(None, FirstStage::Backend).expect("room");
    assert_eq!(
        limits.admit(None, FirstStage::Backend).err(),
        Some(Exceeded::Connections)
    );
    drop(first);
    assert!(limits.admit(None, FirstStage::Backend).is_ok());
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let limits = limits(9, 1, 9);
    let _held = limits
        .admit(ip("192.0.2.1"), FirstStage::Backend)
        .expect("room");
    for _ in 0..20 {
        assert_eq!(
            limits.admit(ip("192.0.2.1"), FirstStage::Backend).err(),
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
    let (mut first, mut place) = limits.admit(None, FirstStage::Backend).expect("room");
    assert_eq!(
        limits.count(&mut first, &mut place, ip("192.0.2.1"), FirstStage::Backend),
        Ok(())
    );
    let (mut second, mut other) = limits.admit(None, FirstStage::Backend).expect("room");
    let refused = limits.count(
        &mut second,
        &mut other,
        ip("192.0.2.1"),
        FirstStage::Backend,
    );
    assert_eq!(refused, Err(Exceeded::ConnectionsPerIp));
    assert_eq!(
        limits.count(
            &mut second,
            &mut other,
            ip("192.0.2.2"),
            FirstStage::Backend
        ),
        Ok(())
    );
    assert_eq!(
        limits.count(&mut second, &mut other, None, FirstStage::Backend),
        Ok(())
    );
    drop(first);
    assert!(limits.admit(ip("192.0.2.1"), FirstStage::Backend).is_ok());
    drop(second);
    assert_eq!(counted(&limits).0, 0);
}

#[test]
fn pending_ends_before_the_connection_does() {
    let limits = limits(9, 9, 1);
    let (_permit, pending) = limits.admit(None, FirstStage::Backend).expect("room");
    assert_eq!(
        limits.admit(None, FirstStage::Backend).err(),
        Some(Exceeded::Pending)
    );
    drop(pending);
    assert!(limits.admit(None, FirstStage::Backend).is_ok());
}

#[test]
fn an_ipv6_client_is_a_64_network() {
    let limits = limits(9, 1, 9);
    let _held = limits
        .admit(ip("2001:db8:0:1::1"), FirstStage::Backend)
        .expect("room");
    assert!(
        limits
            .admit(ip("2001:db8:0:1:ffff::2"), FirstStage::Backend)
            .is_err()
    );
    assert!(
        limits
            .admit(ip("2001:db8:0:2::1"), FirstStage::Backend)
            .is_ok()
    );
    let _mapped = limits
        .admit(ip("::ffff:192.0.2.1"), FirstStage::Backend)
        .expect("room");
    assert!(limits.admit(ip("192.0.2.1"), FirstStage::Backend).is_err());
    assert!(limits.admit(ip("192.0.2.2"), FirstStage::Backend).is_ok());
}

/// The number of counted addresses, and the capacity of the table.
fn counted(limits: &Limits) -> (usize, usize) {
    let shards = (0..SHARDS).map(|index| limits.per_ip.open.at(index));
    shards.fold((0, 0), |(length, capacity), open| {
        (length + open.len(), capacity + open.capacity())
    })
}

#[test]
fn the_table_of_addresses_is_empty_when_all_have_left() {
    let limits = limits(9_000, 9, 9_000);
    let admit = |n: u32| {
        limits
            .admit(Some(IpAddr::V4(n.into())), FirstStage::Backend)
            .expect("room")
    };
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
                    if let Ok(held) = limits.admit(ip("192.0.2.1"), FirstStage::Backend) {
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
        // The threads must stop also if `admitted` panics, because the scope waits for them.
        let result = catch_unwind(AssertUnwindSafe(admitted));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[test]
fn a_refusal_for_one_address_takes_no_room_from_others() {
    let limits = limits(2, 1, 9);
    let _held = limits
        .admit(ip("192.0.2.1"), FirstStage::Backend)
        .expect("room");
    let refused = || {
        let refused = limits.admit(ip("192.0.2.1"), FirstStage::Backend).err();
        // The other threads may have taken the last place at this moment.
        assert!(matches!(
            refused,
            Some(Exceeded::ConnectionsPerIp | Exceeded::Connections)
        ));
    };
    beside(refused, || {
        for _ in 0..20_000 {
            drop(
                limits
                    .admit(ip("192.0.2.2"), FirstStage::Backend)
                    .expect("the second of two"),
            );
        }
    });
}

#[test]
fn a_connection_refused_as_pending_is_counted_nowhere() {
    let limits = limits(2, 2, 1);
    let _held = limits
        .admit(ip("192.0.2.1"), FirstStage::Backend)
        .expect("room");
    let refused = || {
        let refused = limits.admit(ip("192.0.2.1"), FirstStage::Backend).err();
        assert_eq!(refused, Some(Exceeded::Pending));
    };
    beside(refused, || (0..20_000).for_each(|_| refused()));
}

/// Limits: two connections for each client, and bursts of two handshakes for each client and five
/// in total.
fn rated() -> Limits {
    Limits::new(&AdmissionSettings {
        connections_per_ip: Some(2),
        handshakes_per_second: Some(50),
        handshakes_per_second_per_ip: Some(20),
        ..AdmissionSettings::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_handshake_above_a_rate_is_refused_and_leaves_nothing_behind() {
    let limits = rated();
    let begin = |client: &str| limits.admit(ip(client), FirstStage::Handshake);
    for _ in 0..2 {
        drop(begin("2001:db8::1").expect("within its rate"));
        assert!(begin("192.0.2.1").is_ok());
    }
    for _ in 0..20 {
        // All addresses of one /64 count as one client.
        assert_eq!(begin("2001:db8::2").err(), Some(Exceeded::HandshakesPerIp));
    }
    drop(begin("192.0.2.2").expect("the fifth"));
    assert_eq!(begin("192.0.2.3").err(), Some(Exceeded::Handshakes));
    assert_eq!(limits.now(), Counts::of(0));
    assert!(limits.admit(ip("192.0.2.3"), FirstStage::Backend).is_ok());
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert!(begin("192.0.2.3").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_room_uses_up_no_rate() {
    let limits = rated();
    let _held = [(); 2].map(|()| limits.admit(ip("192.0.2.1"), FirstStage::Handshake));
    for _ in 0..20 {
        let refused = limits.admit(ip("192.0.2.1"), FirstStage::Handshake).err();
        assert_eq!(refused, Some(Exceeded::ConnectionsPerIp));
    }
    for client in ["192.0.2.2", "192.0.2.3", "192.0.2.4"] {
        assert!(limits.admit(ip(client), FirstStage::Handshake).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_behind_a_load_balancer_has_its_own_rate() {
    let limits = rated();
    let begin = |client: &str| {
        let (mut permit, mut place) = limits.admit(None, FirstStage::ProxyHeader).expect("room");
        limits.count(&mut permit, &mut place, ip(client), FirstStage::Handshake)
    };
    for _ in 0..2 {
        assert_eq!(begin("192.0.2.1"), Ok(()));
    }
    for _ in 0..20 {
        assert_eq!(begin("192.0.2.1"), Err(Exceeded::HandshakesPerIp));
    }
    assert_eq!(begin("192.0.2.2"), Ok(()));
    assert_eq!(counted(&limits).0, 0);
}

fn handshaking(most: usize) -> Limits {
    Limits::new(&AdmissionSettings {
        handshaking: Some(most),
        ..AdmissionSettings::default()
    })
}

fn shake(limits: &Limits, client: &str) -> Result<(Permit, Handshaking), Exceeded> {
    match limits.admit(ip(client), FirstStage::Handshake)? {
        (permit, Place::Handshaking(place)) => Ok((permit, *place)),
        (_, Place::Pending(_) | Place::None) => panic!("it has a handshake"),
    }
}

#[test]
fn one_client_holds_an_eighth_of_the_handshakes() {
    for (most, share) in [(1_024, 128), (16, 2), (7, 1), (1, 1)] {
        let limits = handshaking(most);
        let held: Vec<_> = (0..share)
            .map(|n| shake(&limits, &format!("2001:db8::{n}")).expect("its share"))
            .collect();
        let refused = shake(&limits, "2001:db8::ffff").err();
        assert_eq!(refused, Some(Exceeded::Handshaking), "{most}");
        assert_eq!(limits.now().open, share as u64);
        drop(held);
        assert!(shake(&limits, "2001:db8::ffff").is_ok());
    }
}

#[test]
fn at_the_limit_the_longest_silent_handshake_makes_room() {
    let limits = handshaking(4);
    let client = |n: usize| format!("192.0.2.{n}");
    let mut held: Vec<_> = (0..4)
        .map(|n| shake(&limits, &client(n)).expect("room"))
        .collect();
    // The oldest has sent a byte, the second has not.
    assert_eq!(held[0].1.speaks(), Ok(()));
    let (_permit, newcomer) = shake(&limits, &client(4)).expect("the place of the second");
    assert_eq!(held[1].1.speaks(), Err(Exceeded::Handshaking));
    assert_eq!(limits.handshakes.now(), 4);
    // The end of a closed handshake does not make room a second time.
    drop(held.remove(1));
    assert_eq!(limits.handshakes.now(), 4);
    for (_, place) in &held {
        assert_eq!(place.speaks(), Ok(()));
    }
    assert_eq!(newcomer.speaks(), Ok(()));
    let refused = shake(&limits, &client(5)).err();
    assert_eq!(refused, Some(Exceeded::Handshaking), "nobody is silent");
    drop(held.pop());
    assert!(shake(&limits, &client(5)).is_ok());
    drop((held, newcomer));
    assert_eq!(limits.handshakes.now(), 0);
}

#[test]
fn no_handshake_makes_room_for_a_client_that_another_limit_refuses() {
    let limits = Limits::new(&AdmissionSettings {
        connections: Some(2),
        handshaking: Some(2),
        ..AdmissionSettings::default()
    });
    let held = ["192.0.2.1", "192.0.2.2"].map(|client| shake(&limits, client).expect("room"));
    let refused = shake(&limits, "192.0.2.3").err();
    assert_eq!(refused, Some(Exceeded::Connections));
    assert!(held.iter().all(|(_, place)| place.speaks().is_ok()));
}

#[test]
fn handshakes_take_no_room_from_waiting_connections() {
    let limits = limits(9, 9, 1);
    let _shaking = shake(&limits, "192.0.2.1").expect("room");
    let waiting = limits.wait().expect("room");
    assert_eq!(limits.wait().err(), Some(Exceeded::Pending));
    assert!(shake(&limits, "192.0.2.2").is_ok());
    assert_eq!(limits.pending(), 2);
    drop(waiting);
    assert!(limits.wait().is_ok());
}

#[test]
fn a_client_behind_a_load_balancer_has_its_share_of_the_handshakes() {
    let limits = handshaking(8);
    let count = |client: &str| {
        let (mut permit, mut place) = limits.admit(None, FirstStage::ProxyHeader)?;
        limits.count(&mut permit, &mut place, ip(client), FirstStage::Handshake)?;
        Ok((permit, place))
    };
    let held = count("192.0.2.1").expect("its share");
    assert_eq!(count("192.0.2.1").err(), Some(Exceeded::Handshaking));
    assert!(count("192.0.2.2").is_ok());
    drop(held);
    assert!(count("192.0.2.1").is_ok());
}
