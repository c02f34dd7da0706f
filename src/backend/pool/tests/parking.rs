//! Connections that wait while no address answers.

use super::*;
use crate::deadline::Scope;

async fn hold(pool: &Pool) -> Result<Lease, Unserved> {
    let deadline = Deadline::after(BUDGET);
    let dialled = pool.dial(None, None, deadline, Park::Hold).await?;
    Ok(dialled.lease)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_parked_is_refused_at_once() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a", "b"]), Balance::LeastConnections);
    let start = Instant::now();
    assert_eq!(dial_or_refuse(&pool).await.err(), Some(Unserved::Refused));
    assert_after(start, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_is_served_by_an_address_that_comes_up() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::LeastConnections);
    let start = Instant::now();
    let come = async {
        tokio::time::sleep(BUDGET / 2).await;
        place.listen("a")
    };
    let (lease, _listener) = tokio::join!(hold(&pool), come);
    assert!(lease.is_ok());
    assert!(start.elapsed() <= BUDGET / 2 + LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_is_served_by_an_address_that_is_registered() {
    let place = Site::new();
    let _listener = place.listen("a");
    let pool = pool(&[], Balance::LeastConnections);
    let come = async {
        tokio::time::sleep(BUDGET / 2).await;
        pool.registry().register(&place.address("a"), us())
    };
    let (lease, _registration) = tokio::join!(hold(&pool), come);
    assert!(lease.is_ok());
}

#[tokio::test(start_paused = true)]
async fn parked_connections_continue_as_soon_as_one_is_served() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::LeastConnections);
    let start = Instant::now();
    // Attempts are made at 5, 15, 35, 75, 155, 315 and 565 ms: this is far from the next one.
    let between = Duration::from_millis(400);
    let come = async {
        tokio::time::sleep(between).await;
        let listener = place.listen("a");
        (listener, dial_or_refuse(&pool).await.expect("it answers"))
    };
    let (first, second, _came) = tokio::join!(hold(&pool), hold(&pool), come);
    assert!(first.is_ok() && second.is_ok());
    assert_after(start, between);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_retries_rarely() {
    let place = Site::new();
    let pool = pool(&place.addresses(["a"]), Balance::LeastConnections);
    assert_eq!(
        hold(&pool).await.err(),
        Some(Unserved::TimedOut(Scope::Phase))
    );
    let tries = pool.turn.load(Ordering::Relaxed);
    assert!((20..30).contains(&tries), "{tries} in {BUDGET:?}");
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_is_given_up_at_the_deadline() {
    let place = Site::new();
    for pool in [
        pool(&place.addresses(["a"]), Balance::Source),
        pool(&[], Balance::Source),
    ] {
        let start = Instant::now();
        assert_eq!(
            hold(&pool).await.err(),
            Some(Unserved::TimedOut(Scope::Phase))
        );
        assert_after(start, BUDGET);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_until_the_deadline_is_a_timeout_and_no_refusal() {
    let (silent, _queue, _queued) = silent();
    for park in [Park::Refuse, Park::Hold] {
        let pool = pool(std::slice::from_ref(&silent), Balance::LeastConnections);
        let start = Instant::now();
        let dialled = pool.dial(None, None, Deadline::after(BUDGET), park).await;
        assert_eq!(
            dialled.err(),
            Some(Unserved::TimedOut(Scope::Phase)),
            "{park:?}"
        );
        assert_after(start, BUDGET);
        assert_eq!(pool.targets()[0].state().failures, 1);
    }
}
