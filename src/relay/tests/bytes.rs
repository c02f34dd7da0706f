//! Every byte arrives once and in order, and no more is buffered than necessary.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::task::{JoinSet, yield_now};

use super::streams::{Buffering, Deaf, Short, Stalling};
use super::*;

/// A behaviour of a stream; see the types with these names.
#[derive(Clone, Debug, PartialEq)]
enum Habit {
    Short(Vec<usize>),
    Stalling(usize),
    Buffering(usize),
}

fn with_habits(stream: impl Stream + 'static, habits: &[Habit]) -> Box<dyn Stream> {
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

/// The habits and the data of both sides of an exchange.
struct Sides<'a> {
    client: &'a [Habit],
    backend: &'a [Habit],
    /// Bytes that each side sends.
    request: usize,
    answer: usize,
    /// In the pipes.
    room: usize,
}

/// Both sides send at the same time.
async fn exchange(over: Over, sides: &Sides<'_>) {
    let (request, answer) = (bytes(sides.request), bytes(sides.answer));
    let (client, client_far) = over.client(sides.room).await;
    let (backend_far, backend) = duplex(sides.room);
    let mut client = client.with(|socket| with_habits(socket, sides.client));
    let mut backend = with_habits(backend, sides.backend);
    let traffic = Traffic::default();
    let relay = async {
        let relay = Relay {
            settings: &PATIENT,
            traffic: &traffic,
        };
        let end = client.join(&mut backend, relay).await;
        drop((client, backend));
        end
    };
    let (end, answered, requested) = come(async {
        tokio::join!(
            relay,
            talk(client_far, &request),
            talk(backend_far, &answer)
        )
    })
    .await;
    assert_eq!(end, End::Done, "{over:?}");
    assert!(requested == request, "{over:?}: the request was changed");
    assert!(answered == answer, "{over:?}: the answer was changed");
    assert_eq!(traffic.from_client.get(), request.len() as u64, "{over:?}");
    assert_eq!(traffic.to_client.get(), answer.len() as u64, "{over:?}");
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
    for over in ALL {
        for client in &habits {
            for backend in &habits {
                let sides = Sides {
                    client,
                    backend,
                    request: 601,
                    answer: 703,
                    room: 500,
                };
                exchange(over, &sides).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_any_buffer_arrives_in_order_and_once() {
    let small = [Habit::Short(vec![30_000, 1, 65_536]), Habit::Stalling(1)];
    let tls = [Habit::Buffering(16 * 1024)];
    for over in ALL {
        for (client, backend, request, answer, room) in [
            (&small[..], &tls[..], 3 << 20, 1 << 20, 50_000),
            (&tls, &small, 1 << 20, 3 << 20, 50_000),
            (&[], &[], 4 << 20, 4 << 20, 1 << 20),
        ] {
            let sides = Sides {
                client,
                backend,
                request,
                answer,
                room,
            };
            exchange(over, &sides).await;
        }
    }
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
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_byte_arrives_in_order_and_once_through_any_habits(
        client in habits(),
        backend in habits(),
        (request, answer) in (0..150_000_usize, 0..150_000_usize),
        room in 1..80_000_usize,
    ) {
        let sides = Sides {
            client: &client,
            backend: &backend,
            request,
            answer,
            room: room.max(request / 50),
        };
        runtime().block_on(async {
            for over in ALL {
                exchange(over, &sides).await;
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_answer_arrives_after_the_client_has_closed() {
    let answer = bytes(10 << 20);
    for over in ALL {
        let (client, client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        let serve = async {
            let mut request = Vec::new();
            backend_far.read_to_end(&mut request).await.expect("an end");
            assert_eq!(request, b"all of it?", "{over:?}");
            backend_far.write_all(&answer).await.expect("a reader");
            backend_far.shutdown().await.expect("a reader");
        };
        let (end, answered, ()) = come(async {
            tokio::join!(
                relay(client, backend, PATIENT),
                talk(client_far, b"all of it?"),
                serve
            )
        })
        .await;
        assert_eq!(end, End::Done, "{over:?}");
        assert!(answered == answer, "{over:?}: the answer was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_the_client_arrives_after_the_backend_has_closed() {
    let request = bytes(10 << 20);
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (backend_far, backend) = duplex(ROOM);
        let ask = async {
            let mut answer = Vec::new();
            client_far.read_to_end(&mut answer).await.expect("an end");
            assert_eq!(answer, b"go on", "{over:?}");
            client_far.write_all(&request).await.expect("a reader");
            client_far.shutdown().await.expect("a reader");
        };
        let (end, requested, ()) = come(async {
            tokio::join!(
                relay(client, backend, PATIENT),
                talk(backend_far, b"go on"),
                ask
            )
        })
        .await;
        assert_eq!(end, End::Done, "{over:?}");
        assert!(requested == request, "{over:?}: the request was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_before_a_backend_came_goes_first() {
    let early = bytes(16 * 1024);
    for over in ALL {
        let (mut client, mut client_far) = over.client(ROOM).await;
        let (backend_far, backend) = duplex(100);
        tokio::join!(client.hear(early.len()), say(&mut client_far, &early));
        let (end, _, requested) = come(async {
            tokio::join!(
                relay(client, backend, PATIENT),
                talk(client_far, b"late"),
                talk(backend_far, b"")
            )
        })
        .await;
        assert_eq!(end, End::Done, "{over:?}");
        assert!(
            requested == [&early, b"late".as_slice()].concat(),
            "{over:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_not_kept_when_no_more_come() {
    for over in ALL {
        let (client, mut client_far) = over.client(ROOM).await;
        let (mut backend_far, backend) = duplex(ROOM);
        let buffering = [Habit::Buffering(ROOM), Habit::Stalling(2)];
        let client = client.with(|socket| with_habits(socket, &buffering));
        let backend = with_habits(backend, &buffering);
        let ping_pong = async {
            for turn in 0..3 {
                say(&mut client_far, &[turn]).await;
                assert_eq!(backend_far.read_u8().await.expect("a byte"), turn);
                say(&mut backend_far, &[turn]).await;
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
}

/// How many bytes of an endless stream a relay accepts from `far` while its other side accepts
/// nothing.
async fn taken_while_stalled(far: impl Stream, relay: impl Future<Output = End>) -> usize {
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut taken = 0;
    let flood = async {
        loop {
            taken += writer.write(&[0; 1000]).await.expect("a reader");
        }
    };
    tokio::select! {
        end = relay => panic!("{end:?}"),
        () = flood => {}
        _ = reader.read_u8() => panic!("nobody answers"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_stalled_side_stops_the_reading_of_the_other() {
    for over in ALL {
        // The client's own TLS buffers up to 64 KiB too.
        let most = over.most_held() + ROOM + 64 * 1024;
        let (client, client_far) = over.client(ROOM).await;
        let (_backend_far, backend) = duplex(ROOM);
        let joined = relay(client, Deaf { inner: backend }, PATIENT);
        let taken = taken_while_stalled(client_far, joined).await;
        assert!((1..=most).contains(&taken), "{over:?}: {taken}");

        let most = over.most_held() + ROOM;
        let (client, _client_far) = over.client(ROOM).await;
        let (backend_far, backend) = duplex(ROOM);
        let client = client.with(|socket| Deaf { inner: socket });
        let taken = taken_while_stalled(backend_far, relay(client, backend, PATIENT)).await;
        assert!((1..=most).contains(&taken), "{over:?}: {taken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_never_pauses_does_not_hold_up_the_other() {
    for over in ALL {
        for endless_client in [true, false] {
            let (client, mut client_far) = over.client(ROOM).await;
            let (mut backend_far, backend) = duplex(ROOM);
            // In the endless direction there are always bytes, and always room for them.
            let (client, mut backend): (_, Box<dyn Stream>) = if endless_client {
                say(&mut backend_far, b"a word").await;
                let flood = client_far.flood();
                let client = client.with(|socket| tokio::io::join(flood, socket));
                (
                    client,
                    Box::new(tokio::io::join(backend, tokio::io::sink())),
                )
            } else {
                say(&mut client_far, b"a word").await;
                let client = client.with(|socket| tokio::io::join(socket, tokio::io::sink()));
                let endless = tokio::io::join(tokio::io::repeat(0), backend);
                (client, Box::new(endless))
            };
            let traffic = Arc::new(Traffic::default());
            let counted = Arc::clone(&traffic);
            let mut relays = JoinSet::new();
            relays.spawn(async move {
                let mut client = client;
                let relay = Relay {
                    settings: &PATIENT,
                    traffic: &counted,
                };
                client.join(&mut backend, relay).await
            });
            for _ in 0..3 {
                yield_now().await;
            }
            let (from_client, to_client) = (traffic.from_client.get(), traffic.to_client.get());
            let least = from_client.min(to_client);
            assert_eq!(least, 6, "{over:?} {from_client} {to_client}");
        }
    }
}
