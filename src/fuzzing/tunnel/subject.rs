//! The side of the tunnel that is tested, and what its streams have seen.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Log;
use crate::tunnel::{
    Carried, Opened, Opening, Originated, StatusCode, TunnelSettings, TunnelStream,
};
use crate::wire::Peer;

/// What was read of a stream.
pub(super) struct Seen {
    /// `None`: any of those that the peer has served.
    pub stream: Option<u32>,
    pub bytes: Vec<u8>,
    /// It ended in order.
    pub ended: bool,
}

const STREAMS: u32 = 8;

/// Serves the streams of a client until the tunnel ends.
pub(super) async fn carry(io: DuplexStream, drains: bool, log: &Arc<Log>) {
    let settings = TunnelSettings {
        alpn: "h2".into(),
        streams: STREAMS,
        workers: false,
    };
    let Ok(mut carried) = Carried::begin(io, &settings).await else {
        return;
    };
    if let Some(budget) = &log.budget {
        carried.grow_within(budget);
    }
    let mut streams = JoinSet::new();
    loop {
        let next = tokio::select! {
            biased;
            next = carried.next() => next,
            Some(served) = streams.join_next() => {
                served.expect("no panic");
                continue;
            }
        };
        let opening = match next {
            Ok(Some(Opened::Client(opening))) => opening,
            Ok(Some(Opened::Worker(_))) => panic!("no worker may come here"),
            Ok(None) | Err(_) => break,
        };
        streams.spawn(serve(opening, Arc::clone(log)));
        assert!(streams.len() <= STREAMS as usize, "more than it allows");
        if drains {
            carried.drain();
        }
    }
    drop(carried);
    while let Some(served) = streams.join_next().await {
        served.expect("no panic");
    }
}

/// The authority is `s`, the number of the stream, and a port that says how it is served.
async fn serve(opening: Opening, log: Arc<Log>) {
    let Opening {
        authority,
        mut stream,
    } = opening;
    let (host, port) = authority.as_str().rsplit_once(':').expect("both");
    let number = host.strip_prefix('s').and_then(|it| it.parse().ok());
    match port {
        "1" => return stream.refuse(StatusCode::NOT_FOUND),
        "2" => return drop(stream),
        _ => stream.welcome(),
    }
    match port {
        "3" => return stream.reset(),
        "4" => {
            let answer = vec![7; 300 * 1024];
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
        "5" => absorb(&mut stream, most_held(&log)).await,
        _ => {}
    }
    let (bytes, ended) = echo(&mut stream, port == "6").await;
    log.push(Seen {
        stream: number,
        bytes,
        ended,
    });
}

/// Takes what arrives and reads nothing.
async fn absorb(stream: &mut TunnelStream, most: usize) {
    let taking = poll_fn(|cx| {
        stream.poll_absorb(cx);
        assert!(stream.held() <= most, "{} bytes", stream.held());
        Poll::<()>::Pending
    });
    // In virtual time.
    let _ = timeout(Duration::from_secs(3), taking).await;
}

/// Reads to the end, and sends everything back if it echoes. Returns what was read, and whether the end was in order.
async fn echo(stream: &mut TunnelStream, echoes: bool) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut piece = [0; 5000];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(_) => return (bytes, false),
        }
        let count = piece.len().min(bytes.len());
        if echoes && stream.write_all(&piece[..count]).await.is_err() {
            return (bytes, false);
        }
    }
    let _ = stream.shutdown().await;
    // It stays so.
    assert_eq!(stream.read(&mut piece).await.ok(), Some(0));
    (bytes, true)
}

/// Opens four streams, and reads and writes them until they end.
pub(super) async fn originate(io: DuplexStream, log: &Arc<Log>) {
    let Ok((originated, mut driver)) = Originated::begin(io, STREAMS).await else {
        return;
    };
    if let Some(budget) = &log.budget {
        driver.grow_within(budget);
    }
    let originated = Arc::new(originated);
    let mut tasks = JoinSet::new();
    for offers in [false, false, true, true] {
        tasks.spawn(ask(Arc::clone(&originated), offers, Arc::clone(log)));
    }
    drop(originated);
    let streams = async {
        while let Some(asked) = tasks.join_next().await {
            asked.expect("no panic");
        }
    };
    let (_, ()) = tokio::join!(driver, streams);
}

async fn ask(originated: Arc<Originated>, offers: bool, log: Arc<Log>) {
    let answer = originated.open("app:1", HeaderMap::new()).await;
    drop(originated);
    let Ok(answer) = answer else {
        return;
    };
    let mut stream = match offers {
        true => answer.into_offer(),
        false => answer.into_stream(),
    };
    stream.welcome();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        let _ = writing.write_all(&[7; 100 * 1024]).await;
        let _ = writing.shutdown().await;
    };
    let ((), (bytes, ended)) = tokio::join!(write, read(&mut reading));
    log.push(Seen {
        stream: None,
        bytes,
        ended,
    });
}

async fn read(reading: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = reading.read_to_end(&mut bytes).await.is_ok();
    (bytes, ended)
}

/// The window of a stream.
fn most_held(log: &Log) -> usize {
    match &log.budget {
        Some(_) => MOST_GROWN,
        None => MOST_HELD,
    }
}

const MOST_HELD: usize = 192 * 1024;
const MOST_GROWN: usize = 4 << 20;
