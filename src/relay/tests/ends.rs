//! Each kind of end of a relay is distinguished from the others.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep};

use super::streams::{Buffering, Deaf, Failing, Full, Stalling};
use super::*;

/// The time for what must still be delivered.
const HALF_CLOSE: Duration = Duration::from_secs(60);
const BRIEF: InactivityTimeouts = InactivityTimeouts {
    half_close: Some(HALF_CLOSE),
    ..PATIENT
};

#[tokio::test(start_paused = true)]
async fn it_is_done_when_both_have_closed() {
    for over in ALL {
        let (client, client_far) = over.client(ROOM).await;
        let (backend_far, backend) = duplex(ROOM);
        let (end, answer, request) = come(async {
            tokio::join!(
                relay(client, backend, PATIENT),
                talk(client_far, b"question"),
                talk(backend_far, b"answer")
            )
        })
        .await;
        assert_eq!(end, End::Done, "{over:?}");
        assert_eq!(
            (request.as_slice(), answer.as_slice()),
            (&b"question"[..], &b"answer"[..])
        );
    }
}

/// A client that sends three bytes and fails. Returns the end, and what the backend had received by
/// then.
async fn end_of_failing_client(over: Over, kind: ErrorKind) -> (End, Vec<u8>) {
    let (client, mut client_far) = over.client(ROOM).await;
    let (mut backend_far, mut backend) = duplex(ROOM);
    say(&mut client_far, b"thr").await;
    let mut client = client.with(|socket| Failing::read_out(socket, kind));
    let traffic = Traffic::default();
    let relay = Relay {
        settings: &PATIENT,
        traffic: &traffic,
    };
    let end = come(client.join(&mut backend, relay)).await;
    assert_eq!(traffic.from_client.get(), 3, "{over:?}");
    let mut arrived = vec![0; ROOM];
    let length = tokio::select! {
        biased;
        read = backend_far.read(&mut arrived) => read.expect("bytes"),
        () = std::future::ready(()) => 0,
    };
    arrived.truncate(length);
    tokio::select! {
        biased;
        read = backend_far.read_u8() => panic!("{over:?}: the backend was told {read:?}"),
        () = std::future::ready(()) => {}
    }
    (end, arrived)
}

#[tokio::test(start_paused = true)]
async fn a_client_without_close_notify_is_truncated() {
    for over in ALL {
        let (end, arrived) = end_of_failing_client(over, ErrorKind::UnexpectedEof).await;
        let expected = (End::ClientTruncated, &b"thr"[..]);
        assert_eq!((end, arrived.as_slice()), expected, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_socket_ends_before_its_tls_does_is_truncated() {
    for over in ALL.into_iter().filter(|over| !over.is_plain()) {
        let (client, mut client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"thr").await;
        drop(client_far);
        let end = come(relay(client, backend, PATIENT)).await;
        assert_eq!(end, End::ClientTruncated, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_in_any_other_way_is_reset() {
    for over in ALL {
        for kind in [
            ErrorKind::ConnectionReset,
            ErrorKind::TimedOut,
            ErrorKind::InvalidData,
        ] {
            let (end, arrived) = end_of_failing_client(over, kind).await;
            let expected = (End::ClientReset, &b"thr"[..]);
            assert_eq!((end, arrived.as_slice()), expected, "{over:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_is_noticed_while_the_backend_takes_nothing() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"request").await;
        say(&mut backend_far, b"answer").await;
        let client = client.with(|socket| Failing::writing(socket, 3));
        let end = come(relay(client, Deaf { inner: backend }, BRIEF)).await;
        assert_eq!(end, End::ClientReset, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_of_its_failure_is_looked_at_while_the_backend_takes_nothing() {
    for over in ALL {
        let (mut client, mut client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"request").await;
        let failure = client.failure();
        let start = Instant::now();
        let fail = async {
            sleep(Duration::from_millis(2_500)).await;
            failure.store(true, Ordering::Relaxed);
        };
        let backend = Deaf { inner: backend };
        let (end, ()) = come(async { tokio::join!(relay(client, backend, BRIEF), fail) }).await;
        assert_eq!(end, End::ClientReset, "{over:?}");
        assert!(
            start.elapsed() < HALF_CLOSE + Duration::from_secs(4),
            "{over:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_more_is_reset() {
    for over in ALL {
        for after in [0, 3] {
            let (client, mut client_far) = over.client(ROOM).await;
            let (mut backend_far, backend) = duplex(ROOM);
            say(&mut backend_far, b"answer").await;
            let client = client.with(|socket| Failing::writing(socket, after));
            let end = come(relay(client, backend, BRIEF)).await;
            assert_eq!(end, End::ClientReset, "{over:?}");
            let mut answer = Vec::new();
            let whole = client_far.read_to_end(&mut answer).await.is_ok();
            // A record without its end contains nothing usable, and TLS reports a truncation.
            let expected = match over {
                Over::Clear | Over::Lent => (true, &b"answer"[..after]),
                Over::Rustls(_) | Over::Record(_) => (false, &b""[..]),
            };
            assert_eq!((whole, answer.as_slice()), expected, "{over:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_refuses_the_end_is_reset() {
    for over in ALL {
        let (client, _client_far) = over.client(ROOM).await;
        let (_, backend) = duplex(ROOM);
        let client = client.with(|socket| Failing {
            at_shutdown: Some(ErrorKind::BrokenPipe),
            ..Failing::never(socket)
        });
        let end = come(relay(client, backend, BRIEF)).await;
        assert_eq!(end, End::ClientReset, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_takes_nothing_of_something_has_failed() {
    // tokio-rustls waits for such a writer, as for one that has no room.
    let all = ALL.into_iter();
    for over in all.filter(|over| !matches!(over, Over::Rustls(_))) {
        let (client, _client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        say(&mut backend_far, b"answer").await;
        let client = client.with(|socket| Full { inner: socket });
        let end = come(relay(client, backend, BRIEF)).await;
        assert_eq!(end, End::ClientReset, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_has_broken_its_answer() {
    for over in ALL {
        for kind in [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof] {
            let (client, mut client_far) = over.client(ROOM).await;
            let (mut backend_far, backend) = duplex(ROOM);
            say(&mut backend_far, b"ans").await;
            let backend = Failing::read_out(backend, kind);
            let end = come(relay(client, backend, PATIENT)).await;
            assert_eq!(end, End::BackendReset(Answer::Broken), "{over:?}");
            let mut answer = Vec::new();
            let whole = client_far.read_to_end(&mut answer).await.is_ok();
            // In plaintext, only the end of the pipe can be seen, which its owner closes.
            assert_eq!((whole, &answer[..]), (over.is_plain(), &b"ans"[..]));
        }
    }
}

/// As servers do with an upload that is too large: they answer before they have read everything.
#[tokio::test(start_paused = true)]
async fn the_answer_of_a_backend_that_refuses_the_rest_arrives_whole() {
    let answer = bytes(1 << 20);
    for over in ALL {
        for after in [0, 5] {
            let (client, mut client_far) = over.client(ROOM).await;
            let (mut backend_far, backend) = duplex(ROOM);
            say(&mut client_far, b"a long upload").await;
            let serve = async {
                say(&mut backend_far, &answer).await;
                backend_far.shutdown().await.expect("a reader");
            };
            let client = client.with(|socket| Stalling::new(socket, 2));
            let backend = Failing::writing(backend, after);
            let mut arrived = Vec::new();
            let read = client_far.read_to_end(&mut arrived);
            let (end, (), read) =
                come(async { tokio::join!(relay(client, backend, PATIENT), serve, read) }).await;
            assert_eq!(end, End::BackendReset(Answer::Whole), "{over:?}");
            assert!(arrived == answer, "{over:?}: the answer was changed");
            read.expect("the client was told that this was all");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_the_rest_and_fails_has_broken_its_answer() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"a long upload").await;
        say(&mut backend_far, b"ans").await;
        let backend = Failing {
            read_out: Some(ErrorKind::ConnectionReset),
            ..Failing::writing(backend, 0)
        };
        let end = come(relay(client, backend, PATIENT)).await;
        assert_eq!(end, End::BackendReset(Answer::Broken), "{over:?}");
        let mut answer = Vec::new();
        let whole = client_far.read_to_end(&mut answer).await.is_ok();
        assert_eq!((whole, &answer[..]), (over.is_plain(), &b"ans"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_follows_the_failure_of_a_write_is_none() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        say(&mut client_far, b"a long upload").await;
        backend_far.shutdown().await.expect("a reader");
        // The failed write has taken the error from the socket: to a read it looks like an end.
        let backend = Failing {
            write_after: Some((5, ErrorKind::ConnectionReset)),
            ..Failing::never(backend)
        };
        let end = come(relay(client, backend, PATIENT)).await;
        assert_eq!(end, End::BackendReset(Answer::Broken), "{over:?}");
        let whole = client_far.read_to_end(&mut Vec::new()).await.is_ok();
        assert_eq!(whole, over.is_plain(), "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_answered_whole_and_then_refuses_is_told_apart() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        let ask = async {
            let mut answer = Vec::new();
            client_far.read_to_end(&mut answer).await.expect("an end");
            say(&mut client_far, b"and another").await;
            answer
        };
        let answer = async {
            say(&mut backend_far, b"answer").await;
            backend_far.shutdown().await.expect("a reader");
        };
        let backend = Failing::writing(backend, 0);
        let (end, answer, ()) =
            come(async { tokio::join!(relay(client, backend, PATIENT), ask, answer) }).await;
        assert_eq!(end, End::BackendReset(Answer::Whole), "{over:?}");
        assert_eq!(answer, b"answer", "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_left_when_it_is_told_the_end_has_not_failed() {
    for over in ALL {
        let at_shutdown = Some(ErrorKind::NotConnected);
        let (client, client_far) = over.client(ROOM).await;
        let (backend_far, backend) = duplex(ROOM);
        let client = client.with(|socket| Failing {
            at_shutdown,
            ..Failing::never(socket)
        });
        let backend = Failing {
            at_shutdown,
            ..Failing::never(backend)
        };
        let (end, ..) = come(async {
            tokio::join!(
                relay(client, backend, PATIENT),
                talk(client_far, b"question"),
                talk(backend_far, b"answer")
            )
        })
        .await;
        assert_eq!(end, End::Done, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_left_with_bytes_for_it_in_a_buffer_has_failed() {
    for over in ALL {
        let (client, _client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        say(&mut backend_far, b"answer").await;
        backend_far.shutdown().await.expect("room");
        let client = client.with(|socket| {
            let gone = Failing {
                write_after: Some((0, ErrorKind::NotConnected)),
                ..Failing::never(socket)
            };
            Buffering::new(gone, ROOM)
        });
        let end = come(relay(client, backend, BRIEF)).await;
        assert_eq!(end, End::ClientReset, "{over:?}");
    }
}
