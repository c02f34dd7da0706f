//! Connections as plain data: what was under way goes on from it.

use super::*;
use crate::relay::record::inbound::Answer;

#[tokio::test(start_paused = true)]
async fn a_stalled_connection_moves_with_all_that_it_holds() {
    for suite in suites() {
        let (mut stream, mut peer) = connection_over(suite, 1_000);
        let (mut near, mut far) = duplex(1_000);
        let (said, answer) = (bytes(50_000), bytes(60_000));
        let mut wire = Vec::new();
        for payload in said.chunks(MAX_PAYLOAD) {
            let cipher = &mut peer.ours.keys.cipher;
            wire.extend(record(cipher, ContentType::ApplicationData, payload));
        }
        wire.extend(record(
            &mut peer.ours.keys.cipher,
            ContentType::Alert,
            &CLOSE_NOTIFY,
        ));
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
        assert!(!stream.opened.is_empty() && !stream.sealed.is_empty());
        assert!(!stream.held.is_empty(), "{suite:?}");
        let mut stream = moved(stream);

        let (end, heard, sealed) = tokio::join!(
            stream.join(&mut near, patient(&traffic)),
            talk(far, answered),
            talk(peer.wire, wire)
        );
        assert_eq!(end, End::Done);
        assert!(heard == said, "{suite:?}: other bytes than were said");
        let (nothing, _) = duplex(1);
        (peer.wire, peer.unread) = (nothing, sealed);
        peer.expect_data(&answer).await;
        assert_eq!(peer.next().await, Some((Received::CloseNotify, vec![])));
    }
}

/// Says the rest and closes, and reads to the end meanwhile.
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

/// The stream that is made of what another one was.
fn moved(stream: RecordStream<DuplexStream>) -> RecordStream<DuplexStream> {
    let (io, state) = stream.export();
    let state = serde_json::to_string(&state).expect("plain data");
    let state = serde_json::from_str(&state).expect("plain data");
    RecordStream::import(io, state).expect("a state that fits")
}
