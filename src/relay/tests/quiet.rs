//! A relay ends when nothing moves for too long, then and not before.

use tokio::time::{Instant, sleep};

use super::streams::Deaf;
use super::*;

const IDLE: Duration = Duration::from_secs(600);
const HALF_CLOSE: Duration = Duration::from_secs(60);
const BOTH: Settings = Settings {
    idle: Some(IDLE),
    half_close: Some(HALF_CLOSE),
};

/// The timer counts milliseconds, and rounds up.
fn assert_after(start: Instant, expected: Duration) {
    let late = start
        .elapsed()
        .checked_sub(expected)
        .expect("not too early");
    assert!(late < Duration::from_millis(3), "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn a_relay_in_which_nothing_moves_ends_after_idle() {
    let (_client_far, client) = duplex(ROOM);
    let (_backend_far, backend) = duplex(ROOM);
    let start = Instant::now();
    assert_eq!(relay(client, backend, BOTH).await, End::Idle);
    assert_after(start, IDLE);
}

#[tokio::test(start_paused = true)]
async fn bytes_in_either_direction_put_idle_off() {
    let (mut client_far, client) = duplex(ROOM);
    let (mut backend_far, backend) = duplex(ROOM);
    let start = Instant::now();
    let almost = IDLE - Duration::from_secs(1);
    let speak = async {
        for _ in 0..5 {
            sleep(almost).await;
            client_far.write_all(b"x").await.expect("a reader");
        }
        for _ in 0..5 {
            sleep(almost).await;
            backend_far.write_all(b"x").await.expect("a reader");
        }
    };
    let (end, ()) = tokio::join!(relay(client, backend, BOTH), speak);
    assert_eq!(end, End::Idle);
    assert_after(start, 10 * almost + IDLE);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_nobody_takes_are_idle() {
    let (mut client_far, client) = duplex(ROOM);
    let (_backend_far, backend) = duplex(ROOM);
    client_far.write_all(b"request").await.expect("room");
    let start = Instant::now();
    let end = relay(client, Deaf { inner: backend }, BOTH).await;
    assert_eq!(end, End::Idle);
    assert_after(start, IDLE);
}

#[tokio::test(start_paused = true)]
async fn no_limit_is_never_reached() {
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    for (idle, half_close) in [(None, None), (Some(Duration::MAX), Some(Duration::MAX))] {
        let (mut client_far, client) = duplex(ROOM);
        let (mut backend_far, backend) = duplex(ROOM);
        let speak = async {
            sleep(century).await;
            client_far.shutdown().await.expect("a reader");
            sleep(century).await;
            backend_far.write_all(b"x").await.expect("a reader");
            backend_far.shutdown().await.expect("a reader");
            client_far.read_u8().await.expect("a byte")
        };
        let settings = Settings { idle, half_close };
        let (end, byte) = tokio::join!(relay(client, backend, settings), speak);
        assert_eq!((end, byte), (End::Done, b'x'));
    }
}

/// Which side closes first.
#[derive(Clone, Copy)]
enum First {
    Client,
    Backend,
}

/// Runs `rest` with the side that has not closed, after `first` has closed at `after`.
async fn half_closed<F: Future>(
    first: First,
    after: Duration,
    rest: impl FnOnce(DuplexStream) -> F,
) -> End {
    let (client_far, client) = duplex(ROOM);
    let (backend_far, backend) = duplex(ROOM);
    let (mut closing, other) = match first {
        First::Client => (client_far, backend_far),
        First::Backend => (backend_far, client_far),
    };
    let script = async {
        sleep(after).await;
        closing.shutdown().await.expect("a reader");
        (rest(other).await, closing)
    };
    tokio::join!(relay(client, backend, BOTH), script).0
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_relay_has_the_time_for_half_closed_ones() {
    for first in [First::Client, First::Backend] {
        let start = Instant::now();
        let end = half_closed(first, Duration::ZERO, std::future::ready).await;
        assert_eq!(end, End::HalfClosed);
        assert_after(start, HALF_CLOSE);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_trickles_is_not_cut() {
    for first in [First::Client, First::Backend] {
        let start = Instant::now();
        let almost = HALF_CLOSE - Duration::from_secs(1);
        let end = half_closed(first, Duration::ZERO, async |mut other| {
            for _ in 0..20 {
                sleep(almost).await;
                other.write_all(b"x").await.expect("a reader");
            }
            other
        })
        .await;
        assert_eq!(end, End::HalfClosed);
        assert_after(start, 20 * almost + HALF_CLOSE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_after_a_long_silence_leaves_time_for_the_other_side() {
    let silence = 5 * HALF_CLOSE;
    for first in [First::Client, First::Backend] {
        let start = Instant::now();
        let end = half_closed(first, silence, std::future::ready).await;
        assert_eq!(end, End::HalfClosed);
        assert_after(start, silence + HALF_CLOSE);

        let end = half_closed(first, silence, async |mut other: DuplexStream| {
            assert_eq!(other.read(&mut [0]).await.expect("an end"), 0);
        })
        .await;
        assert_eq!(end, End::Done);
    }
}
