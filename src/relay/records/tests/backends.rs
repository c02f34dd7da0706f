//! Records on the backend's side, and on both sides.

use super::*;
use crate::record::Role;
use crate::relay::Answer as Had;

type Backend = Records<DuplexStream>;

/// The backend's side of a relay, and the backend.
fn backend(suite: layer::Suite) -> (Backend, Peer) {
    let (near, wire) = duplex(1 << 20);
    let (side, peer) = layer::pair_in(Role::Client, suite);
    let records = Records::of(near, side, Vec::new());
    (records, Peer { wire, layer: peer })
}

/// Joins them until both have ended and `test` is over.
async fn run<C: Endpoint, T>(
    client: &mut Joint<C>,
    backend: &mut Backend,
    test: impl Future<Output = T>,
) -> (End, T) {
    let traffic = Traffic::default();
    let both = async { tokio::join!(client.join(backend, patient(&traffic)), test) };
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(both).await.expect("it hangs")
}

#[tokio::test(start_paused = true)]
async fn bytes_and_ends_pass_both_ways_between_any_two_suites() {
    let said = bytes(200_000);
    for one in suites() {
        for other in suites() {
            let (mut client, mut near) = connection(one);
            let (mut side, mut far) = backend(other);
            let (end, ()) = run(&mut client, &mut side, async {
                for upwards in [true, false] {
                    let (from, to) = match upwards {
                        true => (&mut near, &mut far),
                        false => (&mut far, &mut near),
                    };
                    for payload in said.chunks(MAX_PAYLOAD - 1) {
                        from.data(payload).await;
                    }
                    to.expect_data(&said).await;
                }
                near.close_notify().await;
                assert_eq!(far.next().await, Some((Received::CloseNotify, vec![])));
                // The backend's own side is still open.
                far.data(b"answer").await;
                near.expect_data(b"answer").await;
                far.close_notify().await;
                assert_eq!(near.next().await, Some((Received::CloseNotify, vec![])));
            })
            .await;
            assert_eq!(end, End::Done, "{one:?} {other:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_in_the_clear_and_a_backend_with_records_are_told_each_others_ends() {
    for suite in suites() {
        for client_is_first in [true, false] {
            let (near, mut clear) = duplex(1 << 20);
            let (mut side, mut far) = backend(suite);
            let said = bytes(100_000);
            let (end, ()) = run(&mut Joint::new(near), &mut side, async {
                clear.write_all(&said).await.expect("a relay");
                far.expect_data(&said).await;
                if client_is_first {
                    clear.shutdown().await.expect("a relay");
                    assert_eq!(far.next().await, Some((Received::CloseNotify, vec![])));
                }
                for payload in said.chunks(10_000) {
                    far.data(payload).await;
                }
                far.close_notify().await;
                assert!(read(&mut clear, said.len()).await == said, "{suite:?}");
                assert_eq!(clear.read(&mut [0]).await.expect("an end"), 0);
                if !client_is_first {
                    clear.write_all(b"more").await.expect("a relay");
                    far.expect_data(b"more").await;
                    clear.shutdown().await.expect("a relay");
                    assert_eq!(far.next().await, Some((Received::CloseNotify, vec![])));
                }
            })
            .await;
            assert_eq!(end, End::Done, "{suite:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_close_notify_is_cut_short_and_what_there_was_is_delivered() {
    for suite in suites() {
        let (mut client, mut near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        let (end, ()) = run(&mut client, &mut side, async {
            far.data(b"half an answer").await;
            far.wire.shutdown().await.expect("a relay");
            near.expect_data(b"half an answer").await;
        })
        .await;
        assert_eq!(end, End::BackendReset(Had::Broken), "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_us_after_the_handshake_says_so_with_its_alert() {
    for suite in suites() {
        let (mut client, _near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        let (end, ()) = run(&mut client, &mut side, async {
            let alert = AlertDescription::BadCertificate;
            far.say(ContentType::Alert, &[2, alert.into()]).await;
        })
        .await;
        assert_eq!(end, End::BackendReset(Had::Broken), "{suite:?}");
        assert_eq!(side.given_up(), Some(AlertDescription::BadCertificate));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_breaks_the_protocol_is_told_how() {
    // A request for a certificate, which nobody has offered to send after the handshake.
    const REQUEST: [u8; 7] = [13, 0, 0, 3, 0, 0, 0];
    for suite in suites() {
        let (mut client, mut near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        let (end, ()) = run(&mut client, &mut side, async {
            far.data(b"word").await;
            near.expect_data(b"word").await;
            far.say(ContentType::Handshake, &REQUEST).await;
            let expected = (2, AlertDescription::UnexpectedMessage);
            assert_eq!(far.alert().await, expected, "{suite:?}");
        })
        .await;
        assert_eq!(end, End::BackendReset(Had::Broken), "{suite:?}");
        assert_eq!(side.given_up(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_asks_for_new_keys_has_them_though_the_client_is_quiet() {
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut client, mut near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        let (end, ()) = run(&mut client, &mut side, async {
            for _ in 0..3 {
                far.key_update(1).await;
                let answer = far.next().await.expect("an answer").0;
                assert_eq!(answer, Received::KeyUpdate(Answer::NotRequested));
                near.data(b"question").await;
                far.expect_data(b"question").await;
                far.data(b"answer").await;
                near.expect_data(b"answer").await;
            }
            near.close_notify().await;
            far.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_change_on_both_sides_before_they_have_sealed_too_much() {
    const LIMIT: u64 = 40;
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut client, mut near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        client.client().set_limit(LIMIT);
        side.set_limit(LIMIT);
        let (end, updates) = run(&mut client, &mut side, async {
            let mut updates = 0;
            for turn in 0..200 {
                near.data(&[turn]).await;
                updates += echoed(&mut far, turn).await;
                far.data(&[turn]).await;
                updates += echoed(&mut near, turn).await;
            }
            near.close_notify().await;
            far.close_notify().await;
            updates
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
        assert!(updates >= 2 * 200 / LIMIT, "{suite:?}: {updates}");
    }
}

/// Waits for this byte, and returns the number of key updates until then. Requests are not
/// answered.
async fn echoed(peer: &mut Peer, turn: u8) -> u64 {
    let mut updates = 0;
    loop {
        assert!(peer.opened() <= 40);
        match peer.next().await.expect("bytes") {
            (Received::Data(1), byte) => {
                assert_eq!(byte, [turn]);
                return updates;
            }
            (Received::KeyUpdate(_), _) => updates += 1,
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_before_a_backend_with_records_came_is_sealed_for_it() {
    for suite in suites() {
        let (mut client, mut near) = connection(suite);
        let (mut side, mut far) = backend(suite);
        let said = bytes(100_000);
        for payload in said.chunks(MAX_PAYLOAD) {
            near.data(payload).await;
        }
        near.close_notify().await;
        assert_eq!(client.hear(20_000).await, Heard::Words);
        let (end, ()) = run(&mut client, &mut side, async {
            far.expect_data(&said).await;
            assert_eq!(far.next().await, Some((Received::CloseNotify, vec![])));
            far.close_notify().await;
        })
        .await;
        assert_eq!(end, End::Done, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_nothing_stops_the_client_and_a_quiet_one_owns_no_buffer() {
    const ROOM: usize = 1_000;
    for suite in suites() {
        let (mut client, mut near) = connection_over(suite, ROOM);
        let (near_backend, wire) = duplex(ROOM);
        let (side, peer) = layer::pair_in(Role::Client, suite);
        let mut side = Records::of(near_backend, side, Vec::new());
        let mut far = Peer { wire, layer: peer };
        let said = bytes(400_000);
        let traffic = Traffic::default();
        let mut records = Vec::new();
        for payload in said.chunks(MAX_PAYLOAD) {
            records.extend(near.layer.data(payload));
        }
        let mut unsent = &records[..];
        tokio::select! {
            end = client.join(&mut side, patient(&traffic)) => panic!("{end:?}"),
            _ = near.wire.write_all_buf(&mut unsent) => panic!("all was taken"),
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        let held = side.sealed.len() + client.opened().len() + client.client().held.len();
        assert!(held <= 9 * (MAX_PAYLOAD + OVERHEAD), "{suite:?}: {held}");
        assert!(records.len() - unsent.len() <= held + 2 * ROOM + 100 * OVERHEAD);
        tokio::select! {
            end = client.join(&mut side, patient(&traffic)) => panic!("{end:?}"),
            ((), sent) = async { tokio::join!(far.expect_data(&said), near.wire.write_all_buf(&mut unsent)) } => {
                sent.expect("a relay");
            }
        }
        assert_eq!(traffic.from_client.get(), said.len() as u64);
        let owned = (side.sealed.capacity(), side.held.capacity());
        assert_eq!((owned, client.opened().capacity()), ((0, 0), 0));
    }
}
