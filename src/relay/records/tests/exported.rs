//! Connections as plain data: what was in progress continues from it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stalled_connection_moves_with_all_that_it_holds() {
    for suite in suites() {
        let (mut stream, mut peer) = connection_over(suite, 1_000);
        let (mut near, mut far) = duplex(1_000);
        let (said, answer) = (bytes(50_000), bytes(60_000));
        let mut wire = Vec::new();
        for payload in said.chunks(MAX_PAYLOAD) {
            wire.extend(peer.layer.data(payload));
        }
        wire.extend(peer.layer.close_notify());
        let (mut wire, mut answered) = (&wire[..], &answer[..]);
        let traffic = Traffic::default();
        // Nobody reads at either end.
        let write = async {
            tokio::join!(
                peer.wire.write_all_buf(&mut wire),
                far.write_all_buf(&mut answered)
            )
        };
        tokio::select! {
            end = stream.join(&mut near, patient(&traffic)) => panic!("{end:?}"),
            _ = write => panic!("all was taken"),
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        assert!(!stream.opened().is_empty() && !stream.client().sealed.is_empty());
        assert!(!stream.client().held.is_empty(), "{suite:?}");
        let mut stream = moved(stream);

        let (end, heard, sealed) = tokio::join!(
            stream.join(&mut near, patient(&traffic)),
            talk(far, answered),
            talk(peer.wire, wire)
        );
        assert_eq!(end, End::Done);
        assert!(heard == said, "{suite:?}: other bytes than were said");
        let (nothing, _) = duplex(1);
        (peer.wire, peer.layer.unread) = (nothing, sealed);
        peer.expect_data(&answer).await;
        assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
    }
}

/// Sends the rest and closes, and reads to the end meanwhile.
async fn talk(stream: DuplexStream, rest: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut heard = Vec::new();
    let say = async {
        writer.write_all(rest).await.expect("a relay");
        writer.shutdown().await.expect("a relay");
    };
    let ((), read) = tokio::join!(say, reader.read_to_end(&mut heard));
    read.expect("an end");
    heard
}

/// A key update that one side has requested is part of the state.
#[tokio::test(start_paused = true)]
async fn a_request_for_new_keys_is_answered_once_though_the_connection_moves_before_the_answer() {
    const STEP: usize = 1_000;
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut stream, mut peer) = connection_over(suite, STEP);
        let (mut near, mut far) = duplex(STEP);
        let answer = bytes(3 * STEP);
        // The client reads nothing: the answer to its request waits behind the backend's answer.
        while_joined(&mut stream, &mut near, async {
            far.write_all(&answer[..2 * STEP]).await.expect("a relay");
            peer.key_update(1).await;
            peer.data(b"before").await;
            assert_eq!(read(&mut far, 6).await, b"before");
        })
        .await;
        let records = stream.client();
        assert!(records.layer.is_updating() && !records.sealed.is_empty());

        let mut stream = moved(stream);
        while_joined(&mut stream, &mut near, async {
            peer.key_update(1).await;
            peer.data(b"behind").await;
            assert_eq!(read(&mut far, 6).await, b"behind");
            let send = far.write_all(&answer[2 * STEP..]);
            let mut updates = 0;
            let mut heard = Vec::new();
            let hear = async {
                while heard.len() < answer.len() {
                    match peer.next().await.expect("bytes") {
                        (Received::Data(_), bytes) => heard.extend(bytes),
                        (Received::KeyUpdate(Answer::NotRequested), _) => updates += 1,
                        (other, _) => panic!("{other:?}"),
                    }
                }
            };
            tokio::join!(send, hear).0.expect("a relay");
            assert!(heard == answer, "{suite:?}: other bytes than were said");
            assert_eq!(updates, 1, "{suite:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_asked_for_new_keys_is_not_asked_again_because_the_connection_moved() {
    const LIMIT: u64 = 40;
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut stream, mut peer) = connection(suite);
        let (mut near, mut far) = duplex(1_000);
        stream.client().set_limit(LIMIT);
        let turn = async |peer: &mut Peer, far: &mut DuplexStream| {
            peer.data(b"w").await;
            assert_eq!(read(far, 1).await, b"w");
            far.write_all(b"a").await.expect("a relay");
            let mut asked = 0;
            loop {
                match peer.next().await.expect("bytes").0 {
                    Received::Data(1) => return asked,
                    Received::KeyUpdate(Answer::Requested) => asked += 1,
                    Received::KeyUpdate(Answer::NotRequested) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        let mut asked = 0;
        for _ in 0..3 * LIMIT {
            asked += while_joined(&mut stream, &mut near, turn(&mut peer, &mut far)).await;
            stream = moved(stream);
        }
        assert_eq!(asked, 1, "{suite:?}");
        // After new keys arrived, the peer may be asked for the next ones.
        peer.key_update(0).await;
        for _ in 0..LIMIT + 2 {
            asked += while_joined(&mut stream, &mut near, turn(&mut peer, &mut far)).await;
            stream = moved(stream);
        }
        assert_eq!(asked, 2, "{suite:?}");
    }
}

/// Joins the stream to a backend until `test` is over.
async fn while_joined<T>(
    stream: &mut Client,
    near: &mut DuplexStream,
    test: impl Future<Output = T>,
) -> T {
    let traffic = Traffic::default();
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    tokio::select! {
        end = stream.join(near, patient(&traffic)) => panic!("{end:?}"),
        output = day.bound(test) => output.expect("it hangs"),
    }
}

/// Exports the stream and imports it again.
fn moved(stream: Client) -> Client {
    let (io, state) = stream.export();
    let state = serde_json::to_string(&state).expect("plain data");
    let state = serde_json::from_str(&state).expect("plain data");
    Joint::import(io, state).expect("a state that fits")
}
