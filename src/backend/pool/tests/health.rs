//! Health of addresses: which are up, and which are skipped.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::deadline::Scope;

fn is_down(pool: &Pool, address: &Address) -> bool {
    let targets = pool.targets();
    let target = targets.iter().find(|target| target.address == *address);
    target.expect("an address of the pool").is_down()
}

async fn refuse_times(pool: &Pool, times: u32) {
    for _ in 0..times {
        assert_eq!(dial_or_refuse(pool).await.err(), Some(Unserved::Refused));
    }
}

/// A pool in which `a` has just failed for the last time, and listens again.
async fn fallen(place: &Site) -> (Pool, [UnixListener; 2]) {
    let pool = pool(&place.addresses(["a", "b"]), Balance::RoundRobin);
    let b = place.listen("b");
    while !is_down(&pool, &place.address("a")) {
        let (names, _leases) = dial_times(&pool, place, 1).await;
        assert_eq!(names, ["b"], "tried next");
    }
    (pool, [place.listen("a"), b])
}

#[tokio::test(start_paused = true)]
async fn an_address_that_failed_too_often_is_skipped_until_it_is_due() {
    let place = Site::new();
    let (pool, _listeners) = fallen(&place).await;
    let (names, _leases) = dial_times(&pool, &place, 4).await;
    assert_eq!(names, ["b", "b", "b", "b"]);

    tokio::time::advance(RETRY_AFTER).await;
    let (mut names, _leases) = dial_times(&pool, &place, 4).await;
    names.sort();
    assert_eq!(names, ["a", "a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_up_after_enough_successes() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    refuse_times(&pool, HEALTH.fall).await;
    let a = place.listen("a");
    drop(dial_times(&pool, &place, HEALTH.rise as usize).await);
    assert!(!is_down(&pool, &place.address("a")));

    // As before, single failures do not cause it to be skipped.
    place.close("a", a);
    refuse_times(&pool, HEALTH.fall - 1).await;
    assert!(!is_down(&pool, &place.address("a")));
    refuse_times(&pool, 1).await;
    assert!(is_down(&pool, &place.address("a")));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_on_its_way_up_is_skipped_again() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    refuse_times(&pool, HEALTH.fall).await;
    tokio::time::advance(RETRY_AFTER).await;
    assert!(!is_down(&pool, &place.address("a")), "it is due");
    let a = place.listen("a");
    drop(dial_times(&pool, &place, HEALTH.rise as usize - 1).await);
    place.close("a", a);
    refuse_times(&pool, 1).await;
    assert!(is_down(&pool, &place.address("a")));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_due_and_fails_is_skipped_again() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    refuse_times(&pool, HEALTH.fall).await;
    tokio::time::advance(RETRY_AFTER).await;
    refuse_times(&pool, 1).await;
    assert!(is_down(&pool, &place.address("a")));
}

#[tokio::test(start_paused = true)]
async fn connections_do_not_hide_that_checks_find_a_wrong_answer() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a", "b"]), Balance::RoundRobin);
    let _listeners = ["a", "b"].map(|name| place.listen(name));
    let target = Arc::clone(&pool.targets()[0]);
    for round in 0..HEALTH.fall {
        assert!(!target.is_unfit(), "after {round}");
        drop(dial_times(&pool, &place, 2).await);
        pool.note_verdict(&target, Err("wrong".into()));
    }
    let (names, _leases) = dial_times(&pool, &place, 2).await;
    assert_eq!(names, ["b", "b"]);
    assert!(!pool.addresses()[0].is_up);
    assert_eq!(pool.addresses()[0].last_error.as_deref(), Some("wrong"));

    pool.note_verdict(&target, Ok(()));
    pool.note_verdict(&target, Err("wrong again".into()));
    for _ in 0..HEALTH.rise {
        assert!(target.is_unfit());
        pool.note_verdict(&target, Ok(()));
    }
    let (mut names, _leases) = dial_times(&pool, &place, 2).await;
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(pool.addresses()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_answers_are_wrong_is_not_tried_even_if_no_other_is_left() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    let _a = place.listen("a");
    let target = Arc::clone(&pool.targets()[0]);
    for _ in 0..HEALTH.fall {
        pool.note_verdict(&target, Err("wrong".into()));
    }
    refuse_times(&pool, 1).await;
    // A parked connection gets it at once when its answers are right again.
    let dial = pool.dial(None, None, Deadline::after(BUDGET), Park::Hold);
    let recover = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..HEALTH.rise {
            pool.note_verdict(&target, Ok(()));
        }
        Instant::now()
    };
    let (dialled, since) = tokio::join!(dial, recover);
    assert!(dialled.is_ok());
    assert_after(since, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn when_checks_end_their_verdicts_count_no_more() {
    let place = Site::new();
    let _a = place.listen("a");
    let registry = Arc::<Registry>::default();
    let _registration = registry.register(&place.address("a"), us());
    let pool = || pool(&[], Balance::RoundRobin).with(Arc::clone(&registry));
    let (before, after) = (pool(), pool());
    let target = Arc::clone(&before.targets()[0]);
    let refuse = || {
        for _ in 0..HEALTH.fall {
            before.note_verdict(&target, Err("wrong".into()));
        }
    };
    refuse();
    refuse_times(&after, 1).await;
    let parked = before.dial(None, None, Deadline::after(BUDGET), Park::Hold);
    let reload = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        before.retire();
        Instant::now()
    };
    let (dialled, since) = tokio::join!(parked, reload);
    assert!(dialled.is_ok());
    assert_after(since, Duration::ZERO);
    // Checks that had begun end late.
    refuse();
    assert!(dial_or_refuse(&after).await.is_ok());
    assert_eq!(after.addresses()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn only_failures_in_a_row_count() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    for _ in 0..3 {
        refuse_times(&pool, HEALTH.fall - 1).await;
        let listener = place.listen("a");
        assert!(dial_or_refuse(&pool).await.is_ok());
        place.close("a", listener);
    }
    assert!(!is_down(&pool, &place.address("a")));
}

#[tokio::test(start_paused = true)]
async fn if_all_addresses_are_down_they_are_tried_anyway() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a", "b"]), Balance::LeastConnections);
    refuse_times(&pool, HEALTH.fall).await;
    let addresses = place.addresses(["a", "b"]);
    assert!(addresses.iter().all(|address| is_down(&pool, address)));
    let _b = place.listen("b");
    let lease = dial_or_refuse(&pool).await.expect("it answers again");
    assert_eq!(place.name_of(&lease), "b");
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_leaves_time_for_the_others() {
    let place = Site::new();
    let _listener = place.listen("b");
    let (silent, _queue, _queued) = silent();
    let pool = pool(&[silent.clone(), place.address("b")], Balance::RoundRobin);
    let start = Instant::now();
    let lease = dial_or_refuse(&pool).await.expect("one that answers");
    assert_eq!(place.name_of(&lease), "b");
    assert_after(start, race::STAGGER);

    for _ in 1..HEALTH.fall {
        drop(dial_times(&pool, &place, 2).await);
    }
    assert!(is_down(&pool, &silent), "silence is a failure");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_retried_and_is_no_failure() {
    let place = Site::new();
    let (listener, _queued) = place.full("a");
    let pool = pool(&place.addresses(["a"]), Balance::RoundRobin);
    let make_room = async {
        tokio::time::sleep(BUDGET / 2).await;
        listener.accept().expect("the queued one")
    };
    // This holds also without parking: the backend is there.
    let (dialled, _accepted) = tokio::join!(dial_or_refuse(&pool), make_room);
    assert!(dialled.is_ok());
    assert_eq!(pool.targets()[0].state().failures, 0);

    assert_eq!(
        dial_or_refuse(&pool).await.err(),
        Some(Unserved::TimedOut(Scope::Phase))
    );
    assert_eq!(pool.targets()[0].state().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_with_room_is_preferred_to_a_wait_for_a_full_one() {
    let place = Site::new();
    let (_listener, _queued) = place.full("a");
    let _b = place.listen("b");
    let pool = pool(&place.addresses(["a", "b"]), Balance::RoundRobin);
    let start = Instant::now();
    let (names, _leases) = dial_times(&pool, &place, 4).await;
    assert_eq!(names, ["b", "b", "b", "b"]);
    assert_after(start, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn without_failures_no_connection_waits_for_a_lock() {
    let place = Site::new();
    let _listeners = ["a", "b"].map(|name| place.listen(name));
    let pool = pool(&place.addresses(["a", "b"]), Balance::LeastConnections);
    let targets = pool.targets();
    let (dialled, has_dialled) = mpsc::sync_channel(1);
    let (locked, is_locked) = mpsc::sync_channel(1);
    let holder = thread::spawn(move || {
        let states: Vec<_> = targets.iter().map(|target| target.state()).collect();
        locked.send(()).expect("the test");
        // This fails only if the dial waits for the locks.
        let dialled = has_dialled.recv_timeout(Duration::from_secs(10));
        drop(states);
        dialled
    });
    is_locked.recv().expect("the holder");
    let (names, _leases) = dial_times(&pool, &place, 2).await;
    dialled.send(()).expect("the holder");
    let dialled = holder.join().expect("no panic");
    assert!(dialled.is_ok(), "it waited for a lock");
    assert_eq!(names.len(), 2);
}
