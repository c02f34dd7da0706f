//! Addresses that an operator takes out of service.

use super::*;
use crate::deadline::Scope;
use crate::journal::{EventKind, Journal};

#[tokio::test(start_paused = true)]
async fn a_parked_connection_gets_an_address_as_soon_as_it_is_back_in_service() {
    let place = Site::new();
    let _a = place.listen("a");
    let address = place.address("a");
    let pool = pool(std::slice::from_ref(&address), Balance::RoundRobin);
    assert!(pool.order(&address, AddressState::Drain).is_some());
    assert_eq!(
        dial_or_refuse(&pool).await.err(),
        Some(Unserved::OutOfService(None))
    );
    let dial = pool.dial(None, None, Deadline::after(BUDGET), Park::Hold);
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pool.order(&address, AddressState::Up);
        Instant::now()
    };
    let (dialled, since) = tokio::join!(dial, back);
    assert!(dialled.is_ok());
    assert_after(since, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_address_in_service_ends_at_the_deadline() {
    let place = Site::new();
    let _a = place.listen("a");
    let address = place.address("a");
    let pool = pool(std::slice::from_ref(&address), Balance::RoundRobin);
    pool.order(&address, AddressState::Down);
    let start = Instant::now();
    let dialled = pool.dial(None, None, Deadline::after(BUDGET), Park::Hold);
    let expected = Unserved::OutOfService(Some(Scope::Phase));
    assert_eq!(dialled.await.err(), Some(expected));
    assert_after(start, BUDGET);
    // Nothing was tried, so nothing has failed.
    assert!(pool.addresses()[0].is_up);
}

#[tokio::test(start_paused = true)]
async fn a_changed_pool_takes_over_orders_and_counts_of_the_same_address() {
    let place = Site::new();
    let _listeners = ["a", "b"].map(|name| place.listen(name));
    let before = pool(&place.addresses(["a", "b"]), Balance::RoundRobin);
    let (_, leases) = dial_times(&before, &place, 2).await;
    before.order(&place.address("a"), AddressState::Drain);
    let after = pool(&place.addresses(["b", "a", "c"]), Balance::Source).after(&before);
    let states = after.addresses().into_iter().map(|it| it.state);
    let (up, drain) = (AddressState::Up, AddressState::Drain);
    assert_eq!(states.collect::<Vec<_>>(), [up, drain, up]);
    // An order to the new pool reaches the connections of the old one.
    let ordered = after.order(&place.address("a"), AddressState::Down);
    let numbers = ordered.expect("a known address").numbers;
    let at_a = leases.iter().find(|it| place.name_of(it) == "a");
    let at_a = at_a.expect("one of two");
    assert!(numbers.contains(&at_a.number()) && at_a.is_overtaken());
    let at_b = leases.iter().find(|it| place.name_of(it) == "b");
    assert!(!at_b.expect("one of two").is_overtaken());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_health_is_published_once() {
    let place = Site::new();
    let journal = Arc::new(Journal::default());
    let mut events = journal.subscribe("test", 16);
    let address = place.address("a");
    let pool = pool(std::slice::from_ref(&address), Balance::RoundRobin).reporting("app", &journal);
    for _ in 0..HEALTH.fall + 2 {
        assert!(dial_or_refuse(&pool).await.is_err());
    }
    let _a = place.listen("a");
    drop(dial_times(&pool, &place, HEALTH.rise as usize + 1).await);
    let mut published = Vec::new();
    while let Some(event) = events.next_queued() {
        let EventKind::Backend { reason, .. } = &event.kind else {
            panic!("{event:?}");
        };
        let has_reason = reason.is_some();
        let mut json = serde_json::to_value(&*event).expect("JSON");
        let fields = json.as_object_mut().expect("an object");
        fields.retain(|key, _| key != "time" && key != "reason");
        published.push((json, has_reason));
    }
    let expected = |health| {
        serde_json::json!({
            "event": "backend", "backend": "app", "address": address.to_string(),
            "state": "up", "health": health,
        })
    };
    assert_eq!(
        published,
        [(expected("down"), true), (expected("up"), false)]
    );
}
