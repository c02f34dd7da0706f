//! Each end of a relay is told from the others.

use std::io::ErrorKind;

use super::streams::{Buffering, Deaf, Failing, Short, Stalling};
use super::*;

#[tokio::test(start_paused = true)]
async fn it_is_done_when_both_have_closed() {
    let (client_far, client) = duplex(ROOM);
    let (backend_far, backend) = duplex(ROOM);
    let (end, answer, request) = come(async {
        tokio::join!(
            relay(client, backend, PATIENT),
            talk(client_far, b"question"),
            talk(backend_far, b"answer")
        )
    })
    .await;
    assert_eq!(end, End::Done);
    assert_eq!(
        (request.as_slice(), answer.as_slice()),
        (&b"question"[..], &b"answer"[..])
    );
}

/// What the backend had when a client that failed in the given way after 3 bytes was noticed.
async fn end_of_failing_client(kind: ErrorKind) -> (End, Vec<u8>) {
    let (mut client_far, client) = duplex(ROOM);
    let (mut backend_far, mut backend) = duplex(ROOM);
    client_far.write_all(b"three").await.expect("room");
    let mut client = Failing::reading(client, 3, kind);
    let traffic = Traffic::default();
    let end = come(join(
        &mut client,
        &mut backend,
        Vec::new(),
        PATIENT,
        &traffic,
    ))
    .await;
    let mut arrived = vec![0; ROOM];
    let length = tokio::select! {
        biased;
        read = backend_far.read(&mut arrived) => read.expect("bytes"),
        () = std::future::ready(()) => 0,
    };
    assert!(length > 0, "the backend was told of an end that was none");
    arrived.truncate(length);
    (end, arrived)
}

#[tokio::test(start_paused = true)]
async fn a_client_without_close_notify_is_truncated() {
    let (end, arrived) = end_of_failing_client(ErrorKind::UnexpectedEof).await;
    assert_eq!(
        (end, arrived.as_slice()),
        (End::ClientTruncated, &b"thr"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_in_any_other_way_is_reset() {
    for kind in [
        ErrorKind::ConnectionReset,
        ErrorKind::TimedOut,
        ErrorKind::InvalidData,
    ] {
        let (end, arrived) = end_of_failing_client(kind).await;
        assert_eq!((end, arrived.as_slice()), (End::ClientReset, &b"thr"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_is_noticed_while_the_backend_takes_nothing() {
    let (mut client_far, client) = duplex(ROOM);
    let (mut backend_far, backend) = duplex(ROOM);
    client_far.write_all(b"request").await.expect("room");
    backend_far.write_all(b"answer").await.expect("room");
    let client = Failing::writing(client, 3);
    let end = come(relay(client, Deaf { inner: backend }, PATIENT)).await;
    assert_eq!(end, End::ClientReset);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_more_is_reset() {
    for after in [0, 3] {
        let (mut client_far, client) = duplex(ROOM);
        let (mut backend_far, backend) = duplex(ROOM);
        backend_far.write_all(b"answer").await.expect("room");
        let end = come(relay(Failing::writing(client, after), backend, PATIENT)).await;
        assert_eq!(end, End::ClientReset);
        let mut answer = Vec::new();
        client_far.read_to_end(&mut answer).await.expect("an end");
        assert_eq!(answer, b"answer"[..after]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_refuses_the_end_is_reset() {
    let (_client_far, client) = duplex(ROOM);
    let (_, backend) = duplex(ROOM);
    let client = Failing {
        at_shutdown: Some(ErrorKind::BrokenPipe),
        ..Failing::never(client)
    };
    assert_eq!(
        come(relay(client, backend, PATIENT)).await,
        End::ClientReset
    );
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_takes_nothing_of_something_has_failed() {
    let (mut client_far, client) = duplex(ROOM);
    let (mut backend_far, backend) = duplex(ROOM);
    backend_far.write_all(b"answer").await.expect("room");
    let client = Short::new(client, vec![1, 0]);
    client_far.write_all(b"x").await.expect("room");
    assert_eq!(
        come(relay(client, backend, PATIENT)).await,
        End::ClientReset
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_has_broken_its_answer() {
    for kind in [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof] {
        let (mut client_far, client) = duplex(ROOM);
        let (mut backend_far, backend) = duplex(ROOM);
        backend_far.write_all(b"answer").await.expect("room");
        let backend = Failing::reading(backend, 3, kind);
        let end = come(relay(client, backend, PATIENT)).await;
        assert_eq!(end, End::BackendReset(Answer::Broken));
        let mut answer = Vec::new();
        client_far.read_to_end(&mut answer).await.expect("an end");
        assert_eq!(answer, b"ans");
    }
}

/// A server that says no before it has heard all, as to an upload that is too large.
async fn answer_of_a_backend_that_refuses(
    after: usize,
    answer: &[u8],
    backend: impl FnOnce(DuplexStream) -> Failing<DuplexStream>,
) -> (End, Vec<u8>) {
    let (mut client_far, client) = duplex(ROOM);
    let (mut backend_far, near) = duplex(ROOM);
    let backend = Failing {
        write_after: Some((after, ErrorKind::BrokenPipe)),
        ..backend(near)
    };
    let serve = async {
        backend_far.write_all(answer).await.expect("a reader");
        backend_far.shutdown().await.expect("a reader");
    };
    client_far.write_all(b"a long upload").await.expect("room");
    let mut arrived = Vec::new();
    let (end, (), read) = come(async {
        tokio::join!(
            relay(Stalling::new(client, 2), backend, PATIENT),
            serve,
            client_far.read_to_end(&mut arrived)
        )
    })
    .await;
    read.expect("an end");
    (end, arrived)
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_backend_that_refuses_the_rest_arrives_whole() {
    let answer = bytes(1 << 20);
    for after in [0, 5] {
        let (end, arrived) = answer_of_a_backend_that_refuses(after, &answer, Failing::never).await;
        assert_eq!(end, End::BackendReset(Answer::Whole));
        assert!(arrived == answer, "the answer was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_the_rest_and_fails_has_broken_its_answer() {
    let backend = |near| Failing::reading(near, 3, ErrorKind::ConnectionReset);
    let (end, arrived) = answer_of_a_backend_that_refuses(0, b"answer", backend).await;
    assert_eq!(
        (end, arrived.as_slice()),
        (End::BackendReset(Answer::Broken), &b"ans"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_answered_whole_and_then_refuses_is_told_apart() {
    let (mut client_far, client) = duplex(ROOM);
    let (backend_far, backend) = duplex(ROOM);
    let ask = async {
        let mut answer = Vec::new();
        client_far.read_to_end(&mut answer).await.expect("an end");
        client_far
            .write_all(b"and another")
            .await
            .expect("a reader");
        answer
    };
    let answer = async {
        let mut backend_far = backend_far;
        backend_far.write_all(b"answer").await.expect("a reader");
        backend_far.shutdown().await.expect("a reader");
        backend_far
    };
    let backend = Failing::writing(backend, 0);
    let (end, answer, _open) =
        come(async { tokio::join!(relay(client, backend, PATIENT), ask, answer) }).await;
    assert_eq!(end, End::BackendReset(Answer::Whole));
    assert_eq!(answer, b"answer");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_left_when_it_is_told_the_end_has_not_failed() {
    let gone = Some(ErrorKind::NotConnected);
    let (client_far, client) = duplex(ROOM);
    let (backend_far, backend) = duplex(ROOM);
    let (end, ..) = come(async {
        tokio::join!(
            relay(
                Failing {
                    at_shutdown: gone,
                    ..Failing::never(client)
                },
                Failing {
                    at_shutdown: gone,
                    ..Failing::never(backend)
                },
                PATIENT
            ),
            async { talk(client_far, b"question").await },
            async { talk(backend_far, b"answer").await }
        )
    })
    .await;
    assert_eq!(end, End::Done);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_left_with_bytes_for_it_in_a_buffer_has_failed() {
    let (_client_far, client) = duplex(ROOM);
    let (mut backend_far, backend) = duplex(ROOM);
    backend_far.write_all(b"answer").await.expect("room");
    backend_far.shutdown().await.expect("room");
    let client = Failing {
        write_after: Some((0, ErrorKind::NotConnected)),
        ..Failing::never(client)
    };
    let end = come(relay(Buffering::new(client, ROOM), backend, PATIENT)).await;
    assert_eq!(end, End::ClientReset);
}
