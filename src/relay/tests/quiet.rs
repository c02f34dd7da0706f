//! A relay ends when nothing has moved for too long, and not before.

use tokio::time::{Instant, sleep};

use super::streams::{Deaf, Slow};
use super::*;

const IDLE: Duration = Duration::from_secs(600);
const HALF_CLOSE: Duration = Duration::from_secs(60);
const BOTH: InactivityTimeouts = InactivityTimeouts {
    idle: Some(IDLE),
    half_close: Some(HALF_CLOSE),
    unacknowledged: None,
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
    for over in ALL {
        let (client, _client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        let start = Instant::now();
        assert_eq!(relay(client, backend, BOTH).await, End::Idle, "{over:?}");
        assert_after(start, IDLE);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_in_either_direction_put_idle_off() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        let start = Instant::now();
        let almost = IDLE - Duration::from_secs(1);
        let speak = async {
            for _ in 0..5 {
                sleep(almost).await;
                say(&mut client_far, b"x").await;
            }
            for _ in 0..5 {
                sleep(almost).await;
                say(&mut backend_far, b"x").await;
            }
        };
        let (end, ()) = tokio::join!(relay(client, backend, BOTH), speak);
        assert_eq!(end, End::Idle, "{over:?}");
        assert_after(start, 10 * almost + IDLE);
    }
}

#[tokio::test(start_paused = true)]
async fn observers_see_when_a_byte_moved_last() {
    for over in ALL {
        let (mut client, mut client_far) = over.client(ROOM).await;
        let (_backend_far, mut backend) = duplex(ROOM);
        let traffic = Traffic::default();
        let relay = Relay {
            settings: &BOTH,
            traffic: &traffic,
        };
        let speak = async {
            let start = Instant::now();
            sleep(IDLE / 2).await;
            assert_eq!(traffic.last().elapsed(), start.elapsed(), "{over:?}");
            say(&mut client_far, b"x").await;
            let said = Instant::now();
            sleep(IDLE / 4).await;
            assert_eq!(traffic.last().elapsed(), said.elapsed(), "{over:?}");
        };
        tokio::select! {
            biased;
            () = speak => {}
            end = client.join(&mut backend, relay) => panic!("{end:?} {over:?}"),
        }
    }
}

/// Of TLS in rustls's hands it is not seen what the socket takes: what rustls has taken counts. So it is with what a
/// stream keeps.
#[tokio::test(start_paused = true)]
async fn bytes_that_a_slow_reader_takes_bit_by_bit_put_idle_off() {
    let all = ALL.into_iter();
    for over in all.filter(|over| !matches!(over, Over::Rustls(_) | Over::Lent)) {
        let (client, mut client_far) = over.client(ROOM).await;
        let client = client.with(|socket| Slow::new(socket, 100, IDLE / 2));
        let (mut backend_far, backend) = duplex(1000);
        say(&mut backend_far, &[7; 1000]).await;
        let read = async {
            let mut answer = [0; 1000];
            client_far.read_exact(&mut answer).await.expect("an answer")
        };
        tokio::select! {
            biased;
            read = read => assert_eq!(read, 1000),
            end = relay(client, backend, BOTH) => panic!("{end:?} {over:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_nobody_takes_are_idle() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"request").await;
        let start = Instant::now();
        let end = relay(client, Deaf { inner: backend }, BOTH).await;
        assert_eq!(end, End::Idle, "{over:?}");
        assert_after(start, IDLE);
    }
}

/// Each in a runtime of its own: a clock has room for five centuries.
#[test]
fn no_limit_is_never_reached() {
    for (over, limit) in ALL
        .into_iter()
        .flat_map(|over| [(over, None), (over, Some(Duration::MAX))])
    {
        runtime().block_on(is_never_reached(over, limit));
    }
}

async fn is_never_reached(over: Over, limit: Option<Duration>) {
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let (client, mut client_far) = over.client(ROOM).await;
    let (mut backend_far, backend) = duplex(ROOM);
    let speak = async {
        sleep(century).await;
        client_far.shutdown().await.expect("a reader");
        sleep(century).await;
        backend_far.write_all(b"x").await.expect("a reader");
        backend_far.shutdown().await.expect("a reader");
        client_far.read_u8().await.expect("a byte")
    };
    let settings = InactivityTimeouts {
        idle: limit,
        half_close: limit,
        unacknowledged: None,
    };
    let (end, byte) = tokio::join!(relay(client, backend, settings), speak);
    assert_eq!((end, byte), (End::Done, b'x'), "{over:?}");
}

/// Which side closes first.
#[derive(Clone, Copy, Debug)]
enum First {
    Client,
    Backend,
}

fn all() -> impl Iterator<Item = (Over, First)> {
    let both = [First::Client, First::Backend];
    ALL.into_iter()
        .flat_map(move |over| both.map(|first| (over, first)))
}

/// Runs `rest` with the side that has not closed, after `first` has closed at `after`.
async fn half_closed<F: Future>(
    (over, first): (Over, First),
    after: Duration,
    rest: impl FnOnce(Box<dyn Stream>) -> F,
) -> End {
    let (client, client_far) = over.client(ROOM).await;
    let (backend_far, backend) = duplex(ROOM);
    let fars: [Box<dyn Stream>; 2] = [Box::new(client_far), Box::new(backend_far)];
    let (mut closing, other) = match (first, fars) {
        (First::Client, [client, backend]) => (client, backend),
        (First::Backend, [client, backend]) => (backend, client),
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
    for case in all() {
        let start = Instant::now();
        let end = half_closed(case, Duration::ZERO, std::future::ready).await;
        assert_eq!(end, End::HalfClosed, "{case:?}");
        assert_after(start, HALF_CLOSE);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_trickles_is_not_cut() {
    for case in all() {
        let start = Instant::now();
        let almost = HALF_CLOSE - Duration::from_secs(1);
        let end = half_closed(case, Duration::ZERO, async |mut other| {
            for _ in 0..20 {
                sleep(almost).await;
                say(&mut other, b"x").await;
            }
            other
        })
        .await;
        assert_eq!(end, End::HalfClosed, "{case:?}");
        assert_after(start, 20 * almost + HALF_CLOSE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_after_a_long_silence_leaves_time_for_the_other_side() {
    let silence = 5 * HALF_CLOSE;
    for case in all() {
        let start = Instant::now();
        let end = half_closed(case, silence, std::future::ready).await;
        assert_eq!(end, End::HalfClosed, "{case:?}");
        assert_after(start, silence + HALF_CLOSE);

        let end = half_closed(case, silence, async |mut other: Box<dyn Stream>| {
            assert_eq!(other.read(&mut [0]).await.expect("an end"), 0);
            other.shutdown().await.expect("a reader");
        })
        .await;
        assert_eq!(end, End::Done, "{case:?}");
    }
}

/// A record without payload is no activity.
#[tokio::test(start_paused = true)]
async fn new_keys_do_not_put_idle_off() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        let start = Instant::now();
        let rekey = async {
            sleep(IDLE / 2).await;
            client_far.change_keys();
            client_far.flush().await.expect("a reader");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = relay(client, backend, BOTH) => assert_eq!(end, End::Idle, "{over:?}"),
            () = rekey => {}
        }
        assert_after(start, IDLE);
    }
}
