//! Every byte arrives, in order and once, and no more is held than must be.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::task::{JoinSet, yield_now};

use super::streams::{Buffering, Deaf, Short, Stalling};
use super::*;

/// A habit of a stream; see the types of their names.
#[derive(Clone, Debug)]
enum Habit {
    Short(Vec<usize>),
    Stalling(usize),
    Buffering(usize),
}

fn with_habits(stream: DuplexStream, habits: &[Habit]) -> Box<dyn Stream> {
    let mut stream: Box<dyn Stream> = Box::new(stream);
    for habit in habits {
        stream = match habit {
            Habit::Short(sizes) => Box::new(Short::new(stream, sizes.clone())),
            Habit::Stalling(times) => Box::new(Stalling::new(stream, *times)),
            Habit::Buffering(most) => Box::new(Buffering::new(stream, *most)),
        };
    }
    stream
}

/// Both sides say so many bytes at the same time, over pipes with room for so many.
async fn exchange(
    client: &[Habit],
    backend: &[Habit],
    (request, answer): (usize, usize),
    room: usize,
) {
    let (request, answer) = (bytes(request), bytes(answer));
    let (client_far, client_near) = duplex(room);
    let (backend_far, backend_near) = duplex(room);
    let traffic = Traffic::default();
    let relay = async {
        let mut client = with_habits(client_near, client);
        let mut backend = with_habits(backend_near, backend);
        join(&mut client, &mut backend, Vec::new(), PATIENT, &traffic).await
    };
    let (end, answered, requested) = come(async {
        tokio::join!(
            relay,
            talk(client_far, &request),
            talk(backend_far, &answer)
        )
    })
    .await;
    assert_eq!(end, End::Done);
    assert!(requested == request, "the request was changed");
    assert!(answered == answer, "the answer was changed");
    assert_eq!(traffic.from_client.get(), request.len() as u64);
    assert_eq!(traffic.to_client.get(), answer.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn every_byte_arrives_in_order_and_once_through_each_pair_of_habits() {
    let habits = [
        vec![],
        vec![Habit::Short(vec![1])],
        vec![Habit::Short(vec![7, 1, 4096, 3])],
        vec![Habit::Stalling(3)],
        vec![Habit::Buffering(16 * 1024)],
        vec![Habit::Buffering(512), Habit::Stalling(1)],
        vec![Habit::Stalling(1), Habit::Short(vec![1, 2])],
    ];
    for client in &habits {
        for backend in &habits {
            exchange(client, backend, (9_001, 10_007), 1_000).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_any_buffer_arrives_in_order_and_once() {
    let small = [Habit::Short(vec![30_000, 1, 65_536]), Habit::Stalling(1)];
    let tls = [Habit::Buffering(16 * 1024)];
    exchange(&small, &tls, (3 << 20, 1 << 20), 50_000).await;
    exchange(&tls, &small, (1 << 20, 3 << 20), 50_000).await;
    exchange(&[], &[], (4 << 20, 4 << 20), 1 << 20).await;
}

fn habits() -> impl Strategy<Value = Vec<Habit>> {
    let habit = prop_oneof![
        vec(1..5_000_usize, 1..4).prop_map(Habit::Short),
        (1..4_usize).prop_map(Habit::Stalling),
        (1..20_000_usize).prop_map(Habit::Buffering),
    ];
    vec(habit, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_byte_arrives_in_order_and_once_through_any_habits(
        client in habits(),
        backend in habits(),
        lengths in (0..150_000_usize, 0..150_000_usize),
        room in 1..80_000_usize,
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(exchange(&client, &backend, lengths, room.max(lengths.0 / 50)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_answer_arrives_after_the_client_has_closed() {
    let answer = bytes(10 << 20);
    let (client_far, client_near) = duplex(ROOM);
    let (mut backend_far, backend_near) = duplex(ROOM);
    let serve = async {
        let mut request = Vec::new();
        backend_far.read_to_end(&mut request).await.expect("an end");
        assert_eq!(request, b"all of it?");
        backend_far.write_all(&answer).await.expect("a reader");
        backend_far.shutdown().await.expect("a reader");
    };
    let (end, answered, ()) = come(async {
        tokio::join!(
            relay(client_near, backend_near, PATIENT),
            talk(client_far, b"all of it?"),
            serve
        )
    })
    .await;
    assert_eq!(end, End::Done);
    assert!(answered == answer, "the answer was changed");
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_the_client_arrives_after_the_backend_has_closed() {
    let request = bytes(10 << 20);
    let (mut client_far, client_near) = duplex(ROOM);
    let (backend_far, backend_near) = duplex(ROOM);
    let ask = async {
        let mut answer = Vec::new();
        client_far.read_to_end(&mut answer).await.expect("an end");
        assert_eq!(answer, b"go on");
        client_far.write_all(&request).await.expect("a reader");
        client_far.shutdown().await.expect("a reader");
    };
    let (end, requested, ()) = come(async {
        tokio::join!(
            relay(client_near, backend_near, PATIENT),
            talk(backend_far, b"go on"),
            ask
        )
    })
    .await;
    assert_eq!(end, End::Done);
    assert!(requested == request, "the request was changed");
}

#[tokio::test(start_paused = true)]
async fn early_bytes_go_first() {
    let early = bytes(16 * 1024);
    let (client_far, client_near) = duplex(ROOM);
    let (backend_far, backend_near) = duplex(100);
    let (end, _, requested) = come(async {
        tokio::join!(
            relay_after(&early, client_near, backend_near, PATIENT),
            talk(client_far, b"late"),
            talk(backend_far, b"")
        )
    })
    .await;
    assert_eq!(end, End::Done);
    assert!(requested == [&early, b"late".as_slice()].concat());
}

#[tokio::test(start_paused = true)]
async fn bytes_in_a_buffer_of_the_writer_are_flushed_when_no_more_come() {
    let (mut client_far, client_near) = duplex(ROOM);
    let (mut backend_far, backend_near) = duplex(ROOM);
    let client = Stalling::new(Buffering::new(client_near, ROOM), 2);
    let backend = Stalling::new(Buffering::new(backend_near, ROOM), 2);
    let ping_pong = async {
        for turn in 0..3 {
            client_far.write_u8(turn).await.expect("a reader");
            assert_eq!(backend_far.read_u8().await.expect("a byte"), turn);
            backend_far.write_u8(turn).await.expect("a reader");
            assert_eq!(client_far.read_u8().await.expect("a byte"), turn);
        }
    };
    come(async {
        tokio::select! {
            end = relay(client, backend, PATIENT) => panic!("{end:?}"),
            () = ping_pong => {}
        }
    })
    .await;
}

/// How much of an endless stream a relay takes when the other side takes nothing.
async fn taken_while_stalled(near: impl Stream, far: DuplexStream, other: impl Stream) -> usize {
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut taken = 0;
    let flood = async {
        loop {
            taken += writer.write(&[0; 1000]).await.expect("a reader");
        }
    };
    tokio::select! {
        end = relay(near, other, PATIENT) => panic!("{end:?}"),
        () = flood => {}
        _ = reader.read_u8() => panic!("nobody answers"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_stalled_side_stops_the_reading_of_the_other() {
    let most = 64 * 1024 + ROOM;

    let (client_far, client) = duplex(ROOM);
    let (_backend_far, backend) = duplex(ROOM);
    let taken = taken_while_stalled(client, client_far, Deaf { inner: backend }).await;
    assert!((1..=most).contains(&taken), "{taken}");

    let (_client_far, client) = duplex(ROOM);
    let (backend_far, backend) = duplex(ROOM);
    let client = Deaf { inner: client };
    let (mut reader, mut writer) = tokio::io::split(backend_far);
    let mut taken = 0;
    tokio::select! {
        end = relay(client, backend, PATIENT) => panic!("{end:?}"),
        () = async { loop { taken += writer.write(&[0; 1000]).await.expect("a reader"); } } => {}
        _ = reader.read_u8() => panic!("nobody asks"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    assert!((1..=most).contains(&taken), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_never_pauses_does_not_hold_up_the_other() {
    for endless_client in [true, false] {
        // In the endless direction there are always bytes, and always room for them.
        let (_listener, quiet) = duplex(ROOM);
        let endless = tokio::io::join(tokio::io::repeat(0), quiet);
        let (mut far, near) = duplex(ROOM);
        let other = tokio::io::join(near, tokio::io::sink());
        let traffic = Arc::new(Traffic::default());
        let counted = Arc::clone(&traffic);
        far.write_all(b"a word").await.expect("room");
        let mut relays = JoinSet::new();
        relays.spawn(async move {
            let (mut endless, mut other) = (endless, other);
            match endless_client {
                true => join(&mut endless, &mut other, Vec::new(), PATIENT, &counted).await,
                false => join(&mut other, &mut endless, Vec::new(), PATIENT, &counted).await,
            }
        });
        for _ in 0..20 {
            yield_now().await;
        }
        let (from_client, to_client) = (traffic.from_client.get(), traffic.to_client.get());
        assert_eq!(from_client.min(to_client), 6, "{from_client} {to_client}");
    }
}
