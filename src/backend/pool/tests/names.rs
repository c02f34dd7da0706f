//! Host names with several addresses, and overlapping attempts.

use std::net::SocketAddr;

use super::*;

/// A pool with one name that has these addresses.
fn named(addresses: &[SocketAddr], balance: Balance) -> Pool {
    let name = "app.internal:9000".parse().expect("an address");
    Pool {
        resolver: Resolver::Fixed(addresses.iter().map(|it| Place::Tcp(*it)).collect()),
        ..pool(&[name], balance)
    }
}

fn socket_address(address: &Address) -> SocketAddr {
    match Place::of(address) {
        Some(Place::Tcp(address)) => address,
        other => panic!("{other:?}"),
    }
}

fn listeners<const N: usize>() -> ([SocketAddr; N], [TcpListener; N]) {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let addresses = listeners
        .each_ref()
        .map(|it| it.local_addr().expect("bound"));
    (addresses, listeners)
}

/// A port without a listener.
fn closed() -> SocketAddr {
    let ([address], _) = listeners();
    address
}

fn place_of(lease: &Lease) -> SocketAddr {
    match lease.target.place {
        Some(Place::Tcp(address)) => address,
        ref other => panic!("{other:?}"),
    }
}

async fn places(pool: &Pool, times: usize) -> (Vec<SocketAddr>, Vec<Lease>) {
    let mut leases = Vec::new();
    for _ in 0..times {
        leases.push(dial_or_refuse(pool).await.expect("an address that answers"));
    }
    (leases.iter().map(place_of).collect(), leases)
}

#[tokio::test]
async fn a_name_is_balanced_over_all_its_addresses() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let (addresses, _listeners) = listeners::<3>();
        let pool = named(&addresses, balance);
        let (mut places, _leases) = places(&pool, 9).await;
        places.sort();
        let mut expected = addresses.repeat(3);
        expected.sort();
        assert_eq!(places, expected, "{balance:?}");
    }
    let (addresses, _listeners) = listeners::<3>();
    let pool = named(&addresses, Balance::Source);
    let mut seen = Vec::new();
    for client in 0..50 {
        let client = format!("192.0.2.{client}");
        let first = place_of(&dial_for(&pool, &client).await);
        assert_eq!(place_of(&dial_for(&pool, &client).await), first);
        seen.push(first);
    }
    assert!(addresses.iter().all(|it| seen.contains(it)));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_first_address_costs_a_quarter_of_a_second_until_it_is_down() {
    let (silent, _queue, _queued) = silent();
    let ([live], _listener) = listeners();
    let pool = named(&[socket_address(&silent), live], Balance::RoundRobin);
    for _ in 0..2 * HEALTH.fall {
        let start = Instant::now();
        assert_eq!(places(&pool, 1).await.0, [live]);
        assert!(start.elapsed() < race::STAGGER + Duration::from_millis(3));
    }
    let start = Instant::now();
    assert_eq!(places(&pool, 10).await.0, [live; 10]);
    assert_after(start, Duration::ZERO);
    assert!(!pool.targets()[0].is_down(), "the name answers");
}

#[tokio::test(start_paused = true)]
async fn many_unreachable_addresses_are_tried_at_the_same_time() {
    let silent = [(); 8].map(|()| silent());
    let ([live], _listener) = listeners();
    let mut addresses: Vec<Address> = silent.iter().map(|(it, ..)| it.clone()).collect();
    addresses.push(live.into());
    let pool = pool(&addresses, Balance::RoundRobin);
    let start = Instant::now();
    assert_eq!(places(&pool, 1).await.0, [live]);
    assert!(start.elapsed() < 8 * race::STAGGER + Duration::from_millis(3));
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_next_address_is_tried_at_once() {
    let ([live], _listener) = listeners();
    let pool = named(&[closed(), closed(), live], Balance::RoundRobin);
    let start = Instant::now();
    assert_eq!(places(&pool, 6).await.0, [live; 6]);
    assert_after(start, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_back_is_found_while_another_one_is_silent() {
    let (silent, _queue, _queued) = silent();
    let place = Site::new();
    let pool = pool(&[silent, place.address("a")], Balance::RoundRobin);
    let start = Instant::now();
    let come = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        place.listen("a")
    };
    let dial = pool.dial(None, None, Deadline::after(BUDGET), Park::Hold);
    let (dialled, _listener) = tokio::join!(dial, come);
    let lease = dialled.expect("the one that came back").lease;
    assert_eq!(place.name_of(&lease), "a");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_that_answers_is_down() {
    let pool = named(&[closed(), closed()], Balance::RoundRobin);
    for _ in 0..HEALTH.fall {
        assert!(!pool.targets()[0].is_down());
        assert_eq!(dial_or_refuse(&pool).await.err(), Some(Unserved::Refused));
    }
    assert!(pool.targets()[0].is_down());
}

#[tokio::test]
async fn an_order_for_a_name_is_about_all_its_addresses_and_one_for_an_address_about_that_one() {
    let (addresses, _listeners) = listeners::<2>();
    let pool = named(&addresses, Balance::RoundRobin);
    let (mut found, leases) = places(&pool, 2).await;
    found.sort();
    assert_eq!(found.len(), 2);
    let one = Address::from(addresses[0]);
    let numbers = pool.order(&one, AddressState::Down).expect("known").numbers;
    for lease in &leases {
        let is_it = place_of(lease) == addresses[0];
        assert_eq!(lease.is_overtaken(), is_it);
        assert_eq!(numbers.contains(&lease.number()), is_it);
    }
    let (left, _more) = places(&pool, 2).await;
    assert_eq!(left, [addresses[1]; 2]);

    let name = pool.targets()[0].address.clone();
    let numbers = pool
        .order(&name, AddressState::Down)
        .expect("known")
        .numbers;
    for lease in &leases {
        assert!(lease.is_overtaken() && numbers.contains(&lease.number()));
    }
    let refused = dial_or_refuse(&pool).await.err();
    assert_eq!(refused, Some(Unserved::OutOfService(None)));
    pool.order(&name, AddressState::Up);
    let (left, _more) = places(&pool, 2).await;
    assert_eq!(left, [addresses[1]; 2], "the other has its own order");
}

#[tokio::test]
async fn the_number_of_an_address_that_left_the_answer_is_known_while_it_has_a_connection() {
    let (addresses, _listeners) = listeners::<2>();
    let mut pool = named(&addresses[..1], Balance::RoundRobin);
    let (_, leases) = places(&pool, 1).await;
    pool.resolver = Resolver::Fixed(vec![Place::Tcp(addresses[1])]);
    let (now, _more) = places(&pool, 1).await;
    assert_eq!(now, [addresses[1]]);
    let name = pool.targets()[0].address.clone();
    let ordered = pool.order(&name, AddressState::Down).expect("known");
    assert!(ordered.numbers.contains(&leases[0].number()));
    assert!(leases[0].is_overtaken());
}
