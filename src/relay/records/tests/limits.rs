//! How long a key is used, and who updates it.

use super::*;

/// Low enough to be exceeded often, high enough for what one turn seals.
const LIMIT: u64 = 40;

#[tokio::test(start_paused = true)]
async fn keys_change_before_they_have_sealed_too_much() {
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        for (step, count) in [(1, 200), (MAX_PAYLOAD, 60), (8 * MAX_PAYLOAD, 30)] {
            let (mut stream, mut peer) = connection(suite);
            stream.client().set_limit(LIMIT);
            let (end, updates) = joined(&mut stream, async |mut backend| {
                let mut updates = 0;
                for turn in 0..count {
                    backend.write_all(&vec![turn; step]).await.expect("a relay");
                    let mut said = 0;
                    while said < step {
                        match peer.next().await.expect("bytes") {
                            (Received::Data(length), bytes) => {
                                assert!(bytes.iter().all(|byte| *byte == turn));
                                said += length;
                            }
                            (Received::KeyUpdate(Answer::NotRequested), _) => updates += 1,
                            (other, _) => panic!("{other:?}"),
                        }
                        assert!(peer.opened() <= LIMIT);
                    }
                }
                drop(backend);
                peer.close_notify().await;
                updates
            })
            .await;
            assert_eq!(end, End::Done, "{suite:?}");
            let sealed = u64::from(count) * step.div_ceil(MAX_PAYLOAD) as u64;
            assert!(
                updates >= sealed / LIMIT,
                "{suite:?}: {updates} in {sealed}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_changes_its_keys_is_asked_to() {
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut stream, mut peer) = connection(suite);
        stream.client().set_limit(LIMIT);
        let (end, asked) = joined(&mut stream, async |mut backend| {
            let mut asked = 0;
            for turn in 0..200 {
                peer.data(&[turn]).await;
                assert_eq!(read(&mut backend, 1).await, [turn]);
                backend.write_all(&[turn]).await.expect("a relay");
                loop {
                    match peer.next().await.expect("bytes") {
                        (Received::Data(1), _) => break,
                        (Received::KeyUpdate(Answer::Requested), _) => {
                            asked += 1;
                            peer.key_update(0).await;
                        }
                        (Received::KeyUpdate(Answer::NotRequested), _) => {}
                        (other, _) => panic!("{other:?}"),
                    }
                }
            }
            drop(backend);
            peer.close_notify().await;
            asked
        })
        .await;
        assert_eq!(end, End::Done);
        assert!((3..=5).contains(&asked), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_for_new_keys_is_answered_and_both_directions_go_on() {
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut stream, mut peer) = connection(suite);
        let (end, ()) = joined(&mut stream, async |mut backend| {
            for request in [1, 0, 1, 1, 0] {
                peer.key_update(request).await;
                peer.data(b"word").await;
                assert_eq!(read(&mut backend, 4).await, b"word");
                if request == 1 {
                    let answer = peer.next().await.expect("an answer").0;
                    assert_eq!(answer, Received::KeyUpdate(Answer::NotRequested));
                }
                backend.write_all(b"answer").await.expect("a relay");
                peer.expect_data(b"answer").await;
            }
            drop(backend);
            peer.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

/// RFC 8446 §4.6.3: each side sends an answer as well.
#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_ours_is_answered() {
    const ROOM: usize = 1_000;
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut stream, mut peer) = connection_over(suite, ROOM);
        stream.client().set_limit(LIMIT);
        let (end, ()) = joined(&mut stream, async |mut backend| {
            // The client reads nothing, and there is no room for our request when it is due.
            let answer = [7; ROOM - OVERHEAD];
            backend.write_all(&answer).await.expect("a relay");
            for turn in 0..=LIMIT as u8 {
                peer.data(&[turn]).await;
                assert_eq!(read(&mut backend, 1).await, [turn]);
            }
            peer.key_update(1).await;
            peer.data(b"word").await;
            assert_eq!(read(&mut backend, 4).await, b"word");

            peer.expect_data(&answer).await;
            for expected in [Answer::Requested, Answer::NotRequested] {
                let update = peer.next().await.expect("a KeyUpdate").0;
                assert_eq!(update, Received::KeyUpdate(expected), "{suite:?}");
            }
            backend.write_all(b"more").await.expect("a relay");
            peer.expect_data(b"more").await;
            drop(backend);
            peer.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_are_answered_once() {
    let (mut stream, mut peer) = connection(TLS13);
    let mut wire = Vec::new();
    for _ in 0..20 {
        wire.extend(peer.layer.key_update(1));
    }
    let (end, ()) = joined(&mut stream, async |mut backend| {
        peer.wire.write_all(&wire).await.expect("a reader");
        let answer = peer.next().await.expect("an answer").0;
        assert_eq!(answer, Received::KeyUpdate(Answer::NotRequested));
        backend.write_all(b"answer").await.expect("a relay");
        peer.expect_data(b"answer").await;
        drop(backend);
        peer.close_notify().await;
    })
    .await;
    assert_eq!(end, End::Done);
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_our_close_notify_not_even_an_answer() {
    let (mut stream, mut peer) = connection(TLS13);
    let (end, ()) = joined(&mut stream, async |backend| {
        drop(backend);
        assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
        peer.key_update(1).await;
        peer.close_notify().await;
        assert_eq!(peer.next().await, None);
    })
    .await;
    assert_eq!(end, End::Done);
}

#[tokio::test(start_paused = true)]
async fn in_tls_1_2_the_connection_ends_with_its_keys() {
    for suite in suites().filter(|suite| suite.version == Version::Tls12) {
        let (mut stream, mut peer) = connection(suite);
        stream.client().set_limit(LIMIT);
        let (end, sealed) = joined(&mut stream, async |mut backend| {
            let mut sealed = 0;
            while sealed < LIMIT && backend.write_all(b"w").await.is_ok() {
                tokio::select! {
                    () = peer.expect_data(b"w") => sealed += 1,
                    () = tokio::time::sleep(Duration::from_secs(1)) => break,
                }
            }
            sealed
        })
        .await;
        assert_eq!(end, End::KeysSpent, "{suite:?}");
        assert!(sealed < LIMIT, "{suite:?}");
    }
}
