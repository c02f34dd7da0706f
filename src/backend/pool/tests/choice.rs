//! The choice among addresses.

use std::collections::HashMap;

use super::*;

#[tokio::test(start_paused = true)]
async fn least_connections_spreads_connections_and_follows_their_ends() {
    let place = Site::new();
    let _listeners = ["a", "b", "c"].map(|name| place.listen(name));
    let pool = pool(&place.addresses(["a", "b", "c"]), Balance::LeastConnections);
    let (mut names, mut leases) = dial_times(&pool, &place, 9).await;
    names.sort();
    assert_eq!(names, ["a", "a", "a", "b", "b", "b", "c", "c", "c"]);

    leases.retain(|lease| place.name_of(lease) != "b");
    let (names, more) = dial_times(&pool, &place, 3).await;
    assert_eq!(names, ["b", "b", "b"]);

    drop((leases, more));
    let open = |target: &Arc<Target>| target.open.load(Ordering::Relaxed);
    assert!(pool.targets().iter().all(|target| open(target) == 0));
}

#[tokio::test(start_paused = true)]
async fn round_robin_takes_turns_whatever_is_open() {
    let place = Site::new();
    let _listeners = ["a", "b", "c"].map(|name| place.listen(name));
    let pool = pool(&place.addresses(["a", "b", "c"]), Balance::RoundRobin);
    let (names, leases) = dial_times(&pool, &place, 4).await;
    assert_eq!(names, ["a", "b", "c", "a"]);
    drop(leases);
    let (names, _leases) = dial_times(&pool, &place, 4).await;
    assert_eq!(names, ["b", "c", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn the_turns_of_an_address_that_is_down_are_shared_by_all_others() {
    let place = Site::new();
    let _listeners = ["a", "c", "d"].map(|name| place.listen(name));
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let pool = pool(&place.addresses(["a", "b", "c", "d"]), balance);
        for _ in 0..HEALTH.fall {
            pool.targets()[1].failed(&pool.judge, "for the test");
        }
        let (mut names, _leases) = dial_times(&pool, &place, 9).await;
        names.sort();
        assert_eq!(names, ["a", "a", "a", "c", "c", "c", "d", "d", "d"]);
    }
}

/// The address that serves each of 400 clients.
async fn by_client(pool: &Pool, place: &Site) -> HashMap<String, String> {
    let mut served = HashMap::new();
    for client in 0..400 {
        let client = format!("192.0.{}.{}", client / 200, client % 200);
        let lease = dial_for(pool, &client).await;
        served.insert(client, place.name_of(&lease));
    }
    served
}

#[tokio::test(start_paused = true)]
async fn source_keeps_each_client_and_moves_only_those_it_must() {
    let place = Site::new();
    let _listeners = ["a", "b", "c", "d"].map(|name| place.listen(name));
    let pool = pool(&place.addresses(["a", "b", "c"]), Balance::Source);
    let fourth = pool.registry().register(&place.address("d"), us());
    let before = by_client(&pool, &place).await;
    assert_eq!(by_client(&pool, &place).await, before);
    for name in ["a", "b", "c", "d"] {
        let share = before.values().filter(|served| *served == name).count();
        assert!((50..150).contains(&share), "{name} has {share} of 400");
    }

    drop(fourth);
    let after = by_client(&pool, &place).await;
    for (client, name) in &before {
        assert_ne!(after[client], "d");
        assert!(name == "d" || after[client] == *name, "{client} was moved");
    }

    let _fourth = pool.registry().register(&place.address("d"), us());
    assert_eq!(by_client(&pool, &place).await, before, "and back");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_moved_while_its_own_address_is_down() {
    let place = Site::new();
    let listeners = ["a", "b"].map(|name| place.listen(name));
    let pool = pool(&place.addresses(["a", "b"]), Balance::Source);
    let own = place.name_of(&dial_for(&pool, "192.0.2.1").await);
    let [a, b] = listeners;
    let (closed, _open) = if own == "a" { (a, b) } else { (b, a) };
    place.close(&own, closed);
    assert_ne!(place.name_of(&dial_for(&pool, "192.0.2.1").await), own);
    let _reopened = place.listen(&own);
    assert_eq!(place.name_of(&dial_for(&pool, "192.0.2.1").await), own);
}

#[test]
fn a_burst_does_not_all_go_to_the_address_that_had_the_fewest() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a", "b"]), Balance::LeastConnections);
    let targets = pool.targets();
    let _open = [0; 3].map(|a| Lease::new(Arc::clone(&targets[a])));
    // All addresses are chosen before the first connect has ended.
    let burst: Vec<Lease> = (0..11)
        .filter_map(|_| pool.pick(None, &targets, &mut Vec::new()))
        .collect();
    let to_a = burst.iter().filter(|lease| place.name_of(lease) == "a");
    assert_eq!(
        (burst.len(), to_a.count()),
        (11, 4),
        "seven each in the end"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_is_used_from_its_registration_to_its_withdrawal() {
    let place = Site::new();
    let _listeners = ["a", "b"].map(|name| place.listen(name));
    let pool = pool(&[], Balance::RoundRobin);
    assert!(!pool.has_addresses());
    assert_eq!(dial_or_refuse(&pool).await.err(), Some(Unserved::Refused));

    let (registration, ()) = tokio::join!(
        async { pool.registry().register(&place.address("a"), us()) },
        pool.until_populated()
    );
    assert!(pool.has_addresses());
    let (names, _leases) = dial_times(&pool, &place, 2).await;
    assert_eq!(names, ["a", "a"]);

    let second = pool.registry().register(&place.address("b"), us());
    drop(registration);
    let (names, _leases) = dial_times(&pool, &place, 2).await;
    assert_eq!(names, ["b", "b"]);

    tokio::join!(async { drop(second) }, pool.until_empty());
    assert!(!pool.has_addresses());
}

#[tokio::test(start_paused = true)]
async fn two_registrations_of_an_address_are_withdrawn_one_by_one() {
    let place = Site::new();
    let _listener = place.listen("a");
    let pool = pool(&[], Balance::LeastConnections);
    let first = pool.registry().register(&place.address("a"), us());
    let second = pool.registry().register(&place.address("a"), us());
    drop(first);
    assert!(dial_or_refuse(&pool).await.is_ok());
    drop(second);
    assert_eq!(dial_or_refuse(&pool).await.err(), Some(Unserved::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_registry_keeps_the_state_of_its_addresses_in_another_pool() {
    let place = Site::new();
    let _listeners = ["a", "b"].map(|name| place.listen(name));
    let before = pool(&[], Balance::RoundRobin);
    let [a, _b] = ["a", "b"].map(|name| before.registry().register(&place.address(name), us()));
    let _c = before.registry().register(&place.address("c"), us());
    for _ in 0..HEALTH.fall {
        before.targets()[2].failed(&before.judge, "for the test");
    }
    let (mut names, mut leases) = dial_times(&before, &place, 6).await;
    names.sort();
    assert_eq!(names, ["a", "a", "a", "b", "b", "b"]);
    leases.retain(|lease| place.name_of(lease) == "a");

    // The new pool knows how many connections of the old one are open, and when they end.
    let after = pool(&[], Balance::LeastConnections).with(Arc::clone(before.registry()));
    assert!(after.targets()[2].is_down());
    let (names, more) = dial_times(&after, &place, 3).await;
    assert_eq!(names, ["b", "b", "b"]);
    drop(leases);
    let (names, _more) = dial_times(&after, &place, 3).await;
    assert_eq!(names, ["a", "a", "a"]);
    drop((a, more));
    let (names, _leases) = dial_times(&after, &place, 2).await;
    assert_eq!(names, ["b", "b"]);
}

#[tokio::test]
async fn a_closed_registry_dismisses_earlier_and_later_registrations() {
    let place = Site::new();
    let pool = pool(&[], Balance::RoundRobin);
    let before = pool.registry().register(&place.address("a"), us());
    pool.registry().close();
    let after = pool.registry().register(&place.address("b"), us());
    tokio::join!(before.closed(), after.closed());
}
