//! What client and backend are told when a connection ends, and what still moves until then.

use super::*;

#[tokio::test(start_paused = true)]
async fn bytes_pass_both_ways_with_every_suite() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        let said = bytes(40_000);
        let (end, ()) = joined(&mut stream, async |mut backend| {
            for payload in said.chunks(MAX_PAYLOAD) {
                peer.data(payload).await;
            }
            assert!(read(&mut backend, said.len()).await == said, "{suite:?}");
            backend.write_all(&said).await.expect("a relay");
            peer.expect_data(&said).await;
            backend.shutdown().await.expect("a relay");
            assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
            peer.data(b"more").await;
            peer.close_notify().await;
            let mut rest = Vec::new();
            backend.read_to_end(&mut rest).await.expect("an end");
            assert_eq!(rest, b"more");
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_close_notify_is_not_looked_at() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        let (end, ()) = joined(&mut stream, async |mut backend| {
            peer.data(b"word").await;
            peer.close_notify().await;
            peer.data(b"more").await;
            peer.wire.write_all(&[0; 100]).await.expect("a reader");
            let mut said = Vec::new();
            backend.read_to_end(&mut said).await.expect("an end");
            assert_eq!(said, b"word");
            backend.write_all(b"answer").await.expect("a relay");
            drop(backend);
            peer.expect_data(b"answer").await;
            assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_close_notify_is_a_truncation_wherever_it_comes() {
    for suite in suites() {
        let whole = layer::pair(suite).1.data(b"w");
        for cut in [0, 1, 5, whole.len() - 1, whole.len()] {
            let (mut stream, mut peer) = connection(suite);
            let (end, _backend) = joined(&mut stream, async |backend| {
                peer.wire.write_all(&whole[..cut]).await.expect("a reader");
                peer.wire.shutdown().await.expect("a reader");
                backend
            })
            .await;
            assert_eq!(end, End::ClientTruncated, "{suite:?} cut at {cut}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_protocol_is_told_how_and_the_backend_has_what_came_before() {
    let cases: [(ContentType, &[u8], AlertDescription); 3] = [
        (
            ContentType::ChangeCipherSpec,
            &[1],
            AlertDescription::UnexpectedMessage,
        ),
        (ContentType::Alert, &[1], AlertDescription::DecodeError),
        (
            ContentType::Handshake,
            &[20, 0, 0, 0],
            AlertDescription::UnexpectedMessage,
        ),
    ];
    for suite in suites() {
        for (kind, payload, alert) in cases {
            let (mut stream, mut peer) = connection(suite);
            let (end, ()) = joined(&mut stream, async |mut backend| {
                let mut wire = peer.layer.data(b"word");
                wire.extend(peer.layer.record(kind, payload));
                peer.wire.write_all(&wire).await.expect("a reader");
                assert_eq!(read(&mut backend, 4).await, b"word");
                assert_eq!(peer.alert().await, (2, alert), "{suite:?} {kind:?}");
            })
            .await;
            assert_eq!(end, End::ClientReset, "{suite:?} {kind:?}");
            // Nothing may follow the alert.
            stream.client().close().await.expect("a pipe with room");
            drop(stream);
            peer.unread.clear();
            assert_eq!(peer.next().await, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_given_up_is_told_nothing() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        let (end, ()) = joined(&mut stream, async |_backend| {
            peer.say(ContentType::Alert, &[2, 80]).await;
        })
        .await;
        assert_eq!(end, End::ClientReset, "{suite:?}");
        stream.client().close().await.expect("a pipe with room");
        drop(stream);
        assert_eq!(peer.next().await, None, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renegotiation_is_refused_and_the_connection_goes_on() {
    for suite in suites().filter(|suite| suite.version == Version::Tls12) {
        let (mut stream, mut peer) = connection(suite);
        let (end, ()) = joined(&mut stream, async |mut backend| {
            peer.say(ContentType::Handshake, &[1, 0, 0, 2, 3, 3]).await;
            assert_eq!(peer.alert().await, (1, AlertDescription::NoRenegotiation));
            peer.unread.clear();
            peer.data(b"word").await;
            assert_eq!(read(&mut backend, 4).await, b"word");
            backend.write_all(b"answer").await.expect("a relay");
            peer.expect_data(b"answer").await;
            peer.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_before_a_backend_came_is_kept_within_bounds() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        let said = bytes(200_000);
        for payload in said.chunks(MAX_PAYLOAD) {
            peer.data(payload).await;
        }
        assert_eq!(stream.hear(10_000).await, Heard::Words);
        let kept = stream.opened().len() + stream.client().held.len();
        assert!(stream.opened().len() >= 10_000, "{suite:?}");
        assert!(
            kept <= 10_000 + 2 * (MAX_PAYLOAD + OVERHEAD),
            "{suite:?}: {kept}"
        );
        let (end, ()) = joined(&mut stream, async |mut backend| {
            assert!(read(&mut backend, said.len()).await == said);
            drop(backend);
            peer.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_without_a_word_was_not_heard() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        peer.close_notify().await;
        assert_eq!(stream.hear(10).await, Heard::Nothing);
        let (mut stream, peer) = connection(suite);
        drop(peer);
        assert_eq!(stream.hear(10).await, Heard::Nothing);
        let (mut stream, mut peer) = connection(suite);
        peer.data(b"word").await;
        peer.close_notify().await;
        assert_eq!(stream.hear(10).await, Heard::Words);
        assert_eq!(*stream.up(), State::Ending);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_says_goodbye_once() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        stream.client().close().await.expect("a pipe with room");
        stream.client().close().await.expect("a pipe with room");
        drop(stream);
        assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
        assert_eq!(peer.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_owns_no_buffer() {
    for suite in suites() {
        let (mut stream, mut peer) = connection(suite);
        let said = bytes(MAX_PAYLOAD);
        tokio::select! {
            (end, _) = joined(&mut stream, async |mut backend| {
                for _ in 0..20 {
                    let record = peer.layer.data(&said);
                    // The record comes in two parts, so that the first one must be held.
                    let (first, second) = record.split_at(record.len() / 2);
                    peer.wire.write_all(first).await.expect("a reader");
                    // Paused time advances when nothing else can happen.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    peer.wire.write_all(second).await.expect("a reader");
                    read(&mut backend, said.len()).await;
                    backend.write_all(&said).await.expect("a relay");
                    peer.expect_data(&said).await;
                }
                std::future::pending::<()>().await;
            }) => panic!("{end:?}"),
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        let records = stream.client();
        let owned = (records.held.capacity(), records.sealed.capacity());
        let owned = (owned, stream.opened().capacity());
        assert_eq!(owned, ((0, 0), 0), "{suite:?}");
    }
}
