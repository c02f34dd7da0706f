//! One connection, one worker: at each step of the hand-over, nothing is lost.

use h2::Reason;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::common::changing::Site;
use crate::common::network_worker::Answer;
use crate::common::tunnel::Stream;
use crate::common::{gate, soon};
use crate::{connect, id, offered, start, watch, worker};

#[tokio::test]
async fn exactly_one_of_many_claims_gets_the_connection() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let hosts = [
        worker(&vestibule, &site).await,
        worker(&vestibule, &site).await,
    ];
    let mut watch = watch(&vestibule).await;
    let (mut client, id) = offered(&vestibule, &mut watch, b"hello").await;
    let mut claims = JoinSet::new();
    for number in 0..20 {
        // Either case is an id.
        let id = match number % 4 {
            0 => id.to_uppercase(),
            _ => id.clone(),
        };
        let claim = hosts[number % 2].ask("app", &format!("claim {id}")).await;
        claims.spawn(async move {
            let answer = claim.answer().await;
            if let Answer::Ok(_, mut stream) = answer {
                stream.take();
                return Some(stream);
            }
            assert!(
                matches!(&answer, Answer::No(404, reason) if reason == "unknown"),
                "{answer:?}"
            );
            None
        });
    }
    let claims = claims.join_all().await;
    let mut served: Vec<Stream> = claims.into_iter().flatten().collect();
    assert_eq!(served.len(), 1);
    serve(&mut served[0], &mut client).await;
}

/// The client has sent `hello`, and gets an answer.
async fn serve(stream: &mut Stream, client: &mut UnixStream) {
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    let answer = Bytes::from_static(b"welcome");
    stream.send(answer).await.expect("room");
    let mut answer = [0; 7];
    soon("an answer", client.read_exact(&mut answer))
        .await
        .expect("an answer");
    assert_eq!(&answer, b"welcome");
}

/// What a worker that was told does instead of taking the connection.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Reset,
    BreakOff,
    End,
    Send(&'static [u8]),
}

const FAULTS: [Fault; 6] = [
    Fault::Reset,
    Fault::BreakOff,
    Fault::End,
    Fault::Send(b"\x01"),
    Fault::Send(b"HTTP/1.1 200 OK"),
    Fault::Send(&[255; 8 * 1024]),
];

#[tokio::test]
async fn a_worker_that_fails_after_it_was_told_leaves_the_connection_to_another() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let good = worker(&vestibule, &site).await;
    for fault in FAULTS {
        for line in ["accept", "claim"] {
            let mut watch = watch(&vestibule).await;
            let (mut client, id) = offered(&vestibule, &mut watch, b"hello").await;
            let host = worker(&vestibule, &site).await;
            let line = match line {
                "claim" => format!("claim {id}"),
                _ => line.to_owned(),
            };
            let (facts, mut stream) = host.ask("app", &line).await.granted().await;
            assert_eq!(facts["id"], id.as_str());
            let mut sent = Ok(());
            match fault {
                Fault::Reset => stream.sending.send_reset(Reason::CANCEL),
                Fault::BreakOff => host.0.break_off(),
                Fault::End => sent = stream.end(),
                Fault::Send(bytes) => sent = stream.sending.send_data(bytes.into(), false),
            }
            sent.expect("open");
            if let Fault::End | Fault::Send(_) = fault {
                let reason = stream.reset().await;
                assert_eq!(reason, Some(Reason::PROTOCOL_ERROR), "{fault:?}");
            }
            // It is offered again, and has lost nothing.
            let event = soon("an event", watch.next()).await.expect("an event");
            assert_eq!(event, format!("GONE {id} claimed"));
            let again = soon("an offer", watch.offer()).await;
            assert_eq!(again["id"], id.as_str(), "{fault:?}");
            let (facts, mut stream) = good.accept("app").await;
            assert_eq!(facts["id"], id.as_str());
            serve(&mut stream, &mut client).await;
        }
    }
}

#[tokio::test]
async fn a_worker_that_leaves_while_it_waits_is_never_told() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let good = worker(&vestibule, &site).await;
    let host = worker(&vestibule, &site).await;
    for offer in host.offer("app", 3).await {
        offer.leave();
    }
    host.until_in_place().await;
    let broken = worker(&vestibule, &site).await;
    let _offers = broken.offer("app", 3).await;
    broken.0.break_off();
    let last = good.ask("app", "accept").await;
    let mut client = connect(&vestibule).await;
    client.write_all(b"hello").await.expect("open");
    let (_, mut stream) = last.granted().await;
    stream.take();
    serve(&mut stream, &mut client).await;
}

#[tokio::test]
async fn what_a_worker_sends_before_it_is_told_breaks_the_protocol() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut offers = host.offer("app", 3).await;
    for (offer, (bytes, is_end)) in
        offers
            .iter_mut()
            .zip([(&[0][..], false), (b"x", false), (b"", true)])
    {
        offer.sending.send_data(bytes.into(), is_end).expect("open");
    }
    for offer in offers {
        let answer = offer.answer().await;
        assert!(
            matches!(answer, Answer::Reset(Some(Reason::PROTOCOL_ERROR))),
            "{answer:?}"
        );
    }
    // The tunnel has taken no harm.
    let mut client = connect(&vestibule).await;
    client.write_all(b"hello").await.expect("open");
    let (_, mut stream) = host.accept("app").await;
    serve(&mut stream, &mut client).await;
}

#[tokio::test]
async fn bytes_in_the_frame_of_the_zero_byte_are_the_connections() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    for is_end in [false, true] {
        let mut client = connect(&vestibule).await;
        let (_, mut stream) = host.ask("app", "accept").await.granted().await;
        // Frames without bytes say nothing.
        let _ = stream.sending.send_data(Bytes::new(), false);
        let frame = Bytes::from_static(b"\0\0first");
        stream.sending.send_data(frame, is_end).expect("open");
        if !is_end {
            stream
                .send(Bytes::from_static(b"next"))
                .await
                .expect("room");
            stream.end().expect("open");
        }
        let mut got = Vec::new();
        let read = soon("an end", client.read_to_end(&mut got)).await;
        read.expect("an end");
        assert_eq!(
            got,
            [&b"\0first"[..], if is_end { b"" } else { b"next" }].concat()
        );
        client.shutdown().await.expect("half open");
        assert_eq!(stream.rest().await.expect("an end"), b"");
    }
    vestibule.ended("done", 2).await;
}

#[tokio::test]
async fn a_worker_that_dies_with_its_connection_takes_it_along() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let spare = worker(&vestibule, &site).await;
    for is_reset in [true, false] {
        let host = worker(&vestibule, &site).await;
        let mut client = connect(&vestibule).await;
        client.write_all(b"hello").await.expect("open");
        let (_, mut stream) = host.accept("app").await;
        assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
        let _spare = spare.offer("app", 1).await;
        match is_reset {
            true => stream.sending.send_reset(Reason::CANCEL),
            false => host.0.break_off(),
        }
        // A Unix socket has no reset: the client reads an end.
        let _ = soon("an end", client.read(&mut [0])).await;
    }
    vestibule.ended("backend_reset", 2).await;
}

#[tokio::test]
async fn a_hung_worker_delays_a_connection_once_and_loses_all_its_offers() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let hung = worker(&vestibule, &site).await;
    let mut offers = hung.offer("app", 3).await.into_iter();
    let good = worker(&vestibule, &site).await;
    let offer = good.offer("app", 1).await.remove(0);
    let began = std::time::Instant::now();
    let mut client = connect(&vestibule).await;
    client.write_all(b"hello").await.expect("open");
    let (_, mut silent) = offers.next().expect("three").granted().await;
    let (_, mut stream) = offer.granted().await;
    assert!(began.elapsed().as_secs() < 4, "{:?}", began.elapsed());
    stream.take();
    serve(&mut stream, &mut client).await;
    assert_eq!(silent.reset().await, Some(Reason::CANCEL));
    for offer in offers {
        let answer = offer.answer().await;
        assert!(
            matches!(answer, Answer::Reset(Some(Reason::CANCEL))),
            "{answer:?}"
        );
    }
    vestibule
        .event(|event| {
            let message = crate::common::vestibule::message(event);
            message.starts_with("a network worker did not confirm its connection in time")
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_waits_again_has_its_old_place() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut watch = watch(&vestibule).await;
    let (_first, first) = offered(&vestibule, &mut watch, b"").await;
    let (_second, second) = offered(&vestibule, &mut watch, b"").await;
    let (facts, mut stream) = host.ask("app", "accept").await.granted().await;
    assert_eq!(id(&facts), first);
    stream.sending.send_reset(Reason::CANCEL);
    let again = soon("an offer", watch.offer()).await;
    assert_eq!(id(&again), first);
    for expected in [first, second] {
        let (facts, _stream) = host.ask("app", "accept").await.granted().await;
        assert_eq!(id(&facts), expected);
    }
}

#[tokio::test]
async fn local_and_network_workers_are_served_in_turn() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let (path, host) = (vestibule.gate(), worker(&vestibule, &site).await);
    let mut network = Vec::new();
    let mut local = Vec::new();
    for _ in 0..3 {
        network.extend(host.offer("app", 1).await);
        local.push(gate::send(&path, "ACCEPT app").await);
        gate::until_in_place(&path).await;
    }
    for (offer, mut socket) in network.into_iter().zip(local) {
        let _client = connect(&vestibule).await;
        let (_, mut stream) = offer.granted().await;
        stream.take();
        let _client = connect(&vestibule).await;
        let line = soon("OK", gate::line(&mut socket)).await.expect("a line");
        assert!(line.starts_with("OK {"), "{line}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_connection_from_a_worker_that_has_not_confirmed() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let client = connect(&vestibule).await;
    let (_, mut stream) = host.ask("app", "accept").await.granted().await;
    drop(client);
    assert_eq!(stream.reset().await, Some(Reason::CANCEL));
    vestibule.ended("client_gone", 1).await;
}
