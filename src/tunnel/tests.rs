use std::pin::pin;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

use super::*;
use crate::wire::Patience;

/// Both ends of a tunnel. The streams that arrive are served by `serve`.
async fn tunnel<F>(serve: fn(Opening) -> F) -> (Originated, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = duplex(64 * 1024);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let settings = TunnelSettings {
            alpn: "h2".into(),
            streams: 100,
            workers: false,
        };
        let mut carried = Carried::begin(theirs, &settings).await.expect("HTTP/2");
        let mut streams = JoinSet::new();
        while let Ok(Some(Opened::Client(opening))) = carried.next().await {
            streams.spawn(serve(opening));
        }
    });
    let (originated, driver) = Originated::begin(ours, 100).await.expect("SETTINGS");
    tasks.spawn(async move {
        let _ = driver.await;
    });
    (originated, tasks)
}

async fn echo(opening: Opening) {
    let mut stream = opening.stream;
    stream.welcome();
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.expect("a word");
    stream.write_all(&word).await.expect("open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("a clean end");
    stream.write_all(&rest).await.expect("half open");
    stream.shutdown().await.expect("open");
}

async fn refuse(opening: Opening) {
    opening.stream.refuse(StatusCode::NOT_FOUND);
}

async fn reflect_the_first_byte(opening: Opening) {
    let mut stream = opening.stream;
    stream.welcome();
    let mut first = [1];
    stream.read_exact(&mut first).await.expect("the byte");
    stream.write_all(&first).await.expect("open");
    stream.shutdown().await.expect("open");
}

#[tokio::test]
async fn a_stream_that_we_open_is_relayed_and_closed_in_each_direction() {
    let (originated, _tasks) = tunnel(echo).await;
    let answer = originated.open("db:5432", HeaderMap::new()).await;
    let answer = answer.expect("200");
    assert!(answer.headers.is_empty(), "{:?}", answer.headers);
    let mut stream = answer.into_stream();
    stream.write_all(b"hello").await.expect("open");
    stream.read_exact(&mut [0; 5]).await.expect("an echo");
    stream.write_all(b"last").await.expect("open");
    stream.shutdown().await.expect("open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("a clean end");
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn a_refusal_has_its_status() {
    let (originated, _tasks) = tunnel(refuse).await;
    let refused = originated.open("db:5432", HeaderMap::new()).await.err();
    assert!(
        matches!(refused, Some(OpenError::Refused(StatusCode::NOT_FOUND, _))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_offered_begins_with_one_zero_byte() {
    let (originated, _tasks) = tunnel(reflect_the_first_byte).await;
    let answer = originated.open("app:1", HeaderMap::new()).await;
    let mut stream = answer.expect("200").into_offer();
    assert!(stream.is_unanswered());
    stream.welcome();
    assert!(!stream.is_unanswered());
    stream.welcome();
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.expect("a clean end");
    assert_eq!(seen, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_peer_says_nothing_fails_within_ten_seconds() {
    let (ours, theirs): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    let settings = TunnelSettings {
        alpn: "h2".into(),
        streams: 100,
        workers: false,
    };
    let (begun, _peer) = tokio::join!(
        Originated::begin(ours, 100),
        Carried::begin(theirs, &settings)
    );
    let (_originated, driver) = begun.expect("SETTINGS");
    let mut driver = pin!(driver);
    let early = tokio::time::timeout(Duration::from_millis(9_900), &mut driver).await;
    assert!(early.is_err(), "{early:?}");
    let failed = tokio::time::timeout(Duration::from_millis(200), &mut driver).await;
    assert!(
        matches!(
            failed,
            Ok(Err(CarrierError::Io(std::io::ErrorKind::TimedOut)))
        ),
        "{failed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_anything_is_there() {
    let (ours, mut theirs): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    theirs.write_all(&settings).await.expect("open");
    let (_originated, driver) = Originated::begin(ours, 100).await.expect("SETTINGS");
    let mut driver = pin!(driver);
    let window_update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let says = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            theirs.write_all(&window_update).await.expect("open");
        }
    };
    tokio::select! {
        ended = &mut driver => panic!("{ended:?}"),
        () = says => {}
    }
    let failed = tokio::time::timeout(Duration::from_secs(10), &mut driver).await;
    assert!(matches!(failed, Ok(Err(_))), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_peer_answers_stays() {
    let (originated, mut tasks) = tunnel(echo).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), tasks.join_next()).await;
    assert!(ended.is_err(), "it has ended");
    drop(originated);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_we_end_reads_until_its_peer_has_ended_as_well() {
    for closes in [false, true] {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = duplex(64 * 1024);
        theirs
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .expect("open");
        let begun = Originated::begin(ours, 100).await;
        let (originated, driver) = begun.expect("SETTINGS");
        drop(originated);
        let mut driver = driver;
        (&mut driver).await.expect("an end in order");
        let mut closed = pin!(driver.close(&PATIENT));
        let early = tokio::time::timeout(Duration::from_millis(900), &mut closed).await;
        assert!(early.is_err(), "{early:?}");
        let (ping, mut said) = (
            [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            Vec::new(),
        );
        theirs.write_all(&ping).await.expect("it is read");
        theirs.read_to_end(&mut said).await.expect("its end");
        let began = tokio::time::Instant::now();
        if closes {
            drop(theirs);
        }
        closed.await;
        assert_eq!(began.elapsed().is_zero(), closes);
    }
}

const PATIENT: Patience = Patience {
    half_close: None,
    unacknowledged: None,
};
