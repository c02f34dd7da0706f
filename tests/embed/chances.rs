//! Whatever happens to connections, and in whatever order, each ends once and gives everything back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, rustls};
use vestibule::{
    Backend, Config, ConnectionFilter, ConnectionState, Endpoint, Outcome, Proxy, Running,
    ServeError,
};

use crate::common::{client, soon, until};

const MOST: usize = 40;

/// A configuration with a listener of each kind; `other` is there in every second one.
fn config(other: bool) -> Config {
    let other = match other {
        true => "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n",
        false => "",
    };
    format!(
        r#"
        [gate]
        path = "none"
        [limits]
        connections = {MOST}
        connections_per_ip = 15
        handshaking = 16
        [timeouts]
        handshake = "2s"
        backend = "2s"
        idle = "3s"
        half_close = "1s"
        lifetime = "8s"
        {other}
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        [[listener]]
        name = "proxied"
        address = "127.0.0.1:0"
        accept_proxy_protocol = "required"
        trusted_proxies = ["10.0.0.0/8"]
        [[listener]]
        name = "https"
        address = "127.0.0.1:0"
        [listener.tls]
        certificates = [ {{ chain = "certs/server.pem", key = "certs/server-key.pem" }} ]
        [[backend]]
        name = "app"
        to = "gate"
        [[backend]]
        name = "echo"
        to = "echo"
        [[route]]
        listener = "proxied"
        backend = "echo"
        [[route]]
        backend = "app"
        "#
    )
    .parse()
    .expect("a configuration")
}

/// xorshift64: the same chances each time.
#[derive(Clone)]
struct Chances(u64);

impl Chances {
    fn of(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.of(all.len() as u64) as usize]
    }

    fn apart(&mut self) -> Self {
        Self(self.of(u64::MAX) | 1)
    }
}

/// Says, reads and waits by chance, and leaves in one way or the other.
async fn live(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut by: Chances,
) {
    for _ in 0..by.of(8) {
        let moment = Duration::from_millis(by.of(800));
        let done = match by.of(5) {
            0 => stream.shutdown().await,
            1 | 2 => {
                let bytes = vec![b'x'; by.of(40_000) as usize + 1];
                let said = async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                };
                timeout(moment, said).await.unwrap_or(Ok(()))
            }
            3 => {
                let mut room = vec![0; 10_000];
                let read = timeout(moment, stream.read(&mut room)).await;
                read.map_or(Ok(()), |read| read.map(drop))
            }
            _ => {
                sleep(moment).await;
                Ok(())
            }
        };
        if done.is_err() {
            return;
        }
    }
}

/// A client of this listener, which may not even say what is expected first.
async fn client(listener: &str, mut stream: DuplexStream, mut by: Chances) {
    if by.of(6) == 0 {
        return live(stream, by).await;
    }
    match listener {
        "https" => {
            let connector = TlsConnector::from(client::config(rustls::ALL_VERSIONS));
            let name = "localhost".try_into().expect("a name");
            let moment = Duration::from_secs(by.of(4) + 1);
            if let Ok(Ok(stream)) = timeout(moment, connector.connect(name, stream)).await {
                live(stream, by).await;
            }
        }
        "proxied" => {
            let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
            let _ = stream.write_all(header).await;
            live(stream, by).await;
        }
        _ => live(stream, by).await,
    }
}

/// Takes connections for the backend, slowly and not all of them.
async fn work(mut app: Backend, mut by: Chances) {
    let mut working = JoinSet::new();
    while let Some(connection) = app.accept().await {
        working.spawn(live(connection, by.apart()));
        if by.of(4) == 0 {
            sleep(Duration::from_millis(by.of(1500))).await;
        }
    }
}

type Served = Result<Outcome, ServeError>;

/// What was seen of the connections by those who ran them.
#[derive(Default)]
struct Seen {
    ended: HashMap<Outcome, u64>,
    dropped: u64,
    killed: u64,
}

impl Seen {
    fn note(&mut self, joined: Result<Served, tokio::task::JoinError>) {
        match joined {
            Ok(Ok(outcome)) => *self.ended.entry(outcome).or_default() += 1,
            Ok(Err(ServeError::UnknownListener(_) | ServeError::Draining)) => {}
            Ok(Err(error)) => panic!("{error}"),
            Err(error) if error.is_cancelled() => self.dropped += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn agrees_with(&self, running: &Running, seed: u64) {
        let statistics = running.statistics();
        for outcome in Outcome::ALL {
            let (seen, counted) = (
                self.ended.get(&outcome).copied().unwrap_or_default(),
                statistics.ended(outcome),
            );
            match outcome {
                // Of one that was dropped before it was polled nothing is known.
                Outcome::Aborted => assert!(counted <= self.dropped, "{counted}, seed {seed}"),
                _ => assert_eq!(counted, seen, "{outcome}, seed {seed}"),
            }
        }
        assert!(statistics.ended(Outcome::Killed) <= self.killed);
    }
}

fn filter(by: &mut Chances) -> ConnectionFilter {
    let all = ConnectionFilter::all();
    match by.of(5) {
        0 => all.listener(by.one(&["plain", "https", "proxied", "other"])),
        1 => all.backend(by.one(&["app", "echo"])),
        2 => all.peer([192, 0, 2, 7].into()),
        3 => all.state(by.one(&[
            ConnectionState::Handshaking,
            ConnectionState::Waiting,
            ConnectionState::Relaying,
            ConnectionState::Closing,
        ])),
        _ => all.peer([10, 0, 0, by.of(4) as u8].into()),
    }
}

async fn try_all(seed: u64) {
    let mut by = Chances(seed);
    let proxy = Proxy::builder(config(true)).bind().await.expect("bound");
    let app = proxy.backend("app");
    let mut running = proxy.start();
    let mut others = JoinSet::new();
    others.spawn(work(app, by.apart()));
    let mut serving: JoinSet<Served> = JoinSet::new();
    let (mut aborts, mut seen): (Vec<AbortHandle>, _) = (Vec::new(), Seen::default());
    for step in 0..400 {
        match by.of(20) {
            0..12 => {
                let listener = by.one(&["plain", "https", "proxied", "other"]);
                let (theirs, ours) = duplex(by.one(&[64, 1024, 65_536]));
                let peer = Endpoint::Tcp(([10, 0, 0, by.of(4) as u8], 4711).into());
                aborts.push(serving.spawn(running.serve(listener, ours, peer)));
                others.spawn(client(listener, theirs, by.apart()));
            }
            12..15 => {
                for _ in 0..=by.of(1) {
                    let filter = filter(&mut by);
                    seen.killed += running.kill(&filter) as u64;
                }
            }
            15 | 16 if !aborts.is_empty() => {
                let chosen = by.of(aborts.len() as u64) as usize;
                aborts.swap_remove(chosen).abort();
            }
            17 if step % 3 == 0 => {
                let reloaded = running.reload(config(by.of(2) == 0)).await;
                reloaded.expect("put in place");
            }
            _ => sleep(Duration::from_millis(by.of(300))).await,
        }
        while let Some(joined) = serving.try_join_next() {
            seen.note(joined);
        }
    }
    soon("all have ended", async {
        while let Some(joined) = serving.join_next().await {
            seen.note(joined);
        }
    })
    .await;
    until("all are told", || running.statistics().open == 0).await;
    let statistics = running.statistics();
    assert_eq!(
        (statistics.pending, statistics.waiting),
        (0, 0),
        "seed {seed}"
    );
    assert!(running.connections(&ConnectionFilter::all()).is_empty());
    seen.agrees_with(&running, seed);
    all_places_are_free(&running, seed).await;
    assert_eq!(soon("a drain", running.drain(Duration::ZERO)).await.cut, 0);
}

/// As many can be open as at the start.
async fn all_places_are_free(running: &Running, seed: u64) {
    let mut serving = JoinSet::new();
    let mut clients = Vec::new();
    for index in 0..MOST {
        let (mut theirs, ours) = duplex(64);
        let peer = Endpoint::Tcp(([10, 1, 0, index as u8], 4711).into());
        serving.spawn(running.serve("plain", ours, peer));
        theirs.write_all(b"x").await.expect("room");
        clients.push(theirs);
    }
    until("all are open", || {
        running.statistics().open == MOST || serving.len() < MOST
    })
    .await;
    assert!(serving.try_join_next().is_none(), "seed {seed}");
    serving.shutdown().await;
    assert_eq!(running.statistics().open, 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn every_connection_ends_once_and_gives_everything_back() {
    let seeds = std::env::var("CHANCES").map_or(4, |seeds| seeds.parse().expect("a number"));
    for seed in 1..=seeds {
        try_all(seed * 0x9e37_79b9).await;
    }
}
