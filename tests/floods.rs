//! Every kind of flood by unknown clients at the same time, with the default limits, while nobody
//! reads the log.
//!
//! `FLOOD_SECONDS=600 cargo test --test floods -- --nocapture` is the long form.

mod common;

use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::{self, Client, Socket, client_hello, from};
use common::pki::Authority;
use common::process::vestibule;
use common::resources::raise_own_limit;
use common::soon;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig};

/// The defaults, except for the addresses and the backend.
const CONFIG: &str = r#"
[[listener]]
name = "front"
address = "127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
[[listener]]
name = "proxied"
address = "127.0.0.1:0"
accept_proxy_protocol = "required"
trusted_proxies = ["127.0.0.9"]
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
[[listener]]
name = "claimed"
address = "127.0.0.1:0"
[[route]]
listener = "claimed"
backend = "workers"
[[route]]
listener = ["front", "proxied"]
sni = ["localhost"]
backend = "echo"
[[route]]
listener = ["front", "proxied"]
deny = true
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "workers"
to = "gate"
"#;

#[tokio::test]
async fn clients_are_served_through_all_floods_while_nobody_reads_the_log() {
    raise_own_limit();
    let seconds = std::env::var("FLOOD_SECONDS").ok();
    // Longer than log lines are kept for a slow reader, so that lines are dropped on slow machines
    // too.
    let seconds = seconds.map_or(8, |seconds| seconds.parse().expect("a number"));
    // The default level has too few lines to fill the queue in a short test.
    let level = if seconds < 120 { "debug" } else { "info" };
    let directory = tempfile::tempdir().expect("a directory");
    let (mut child, mut log) = start(directory.path(), level);
    let mut sites = Sites::default();
    for line in log.by_ref().lines() {
        sites.learn(&line.expect("text"));
        if sites.are_known() {
            break;
        }
    }
    let sites = Arc::new(sites);
    let mut strangers = JoinSet::new();
    for (flood, count) in FLOODS {
        for number in 0..count {
            strangers.spawn(flood_for_ever(Arc::clone(&sites), flood, number));
        }
    }

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut established = soon("a handshake", honest(&sites)).await;
    let (mut messages, mut clients) = (0, 0);
    while Instant::now() < end {
        soon("an echo", echo(&mut established)).await;
        messages += 1;
        if messages % 10 == 0 {
            let mut client = soon("a handshake", honest(&sites)).await;
            soon("an echo", echo(&mut client)).await;
            client.shutdown().await.expect("open");
            clients += 1;
        }
    }
    strangers.shutdown().await;
    drop(established);

    let rest = spawn_blocking(move || {
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("text");
        rest
    });
    let pid = Pid::from_raw(child.id().expect("alive") as i32).expect("a pid");
    kill_process(pid, Signal::TERM).expect("our own child");
    let status = soon("an exit", child.wait()).await.expect("our own child");
    assert_eq!(status.code(), Some(0));
    let rest = soon("the log", rest).await.expect("no panic");
    let events = rest.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no line: {line}"));
        event["dropped"].as_u64()
    });
    let (kept, dropped) = events.fold((0, 0), |(kept, all), dropped| {
        (kept + 1, all + dropped.unwrap_or_default())
    });
    println!("{messages} echoes, {clients} clients; {kept} lines kept and {dropped} dropped");
    assert!(dropped > 0, "{kept} lines fitted");
}

/// The log goes to a pipe that only the test reads.
fn start(directory: &Path, level: &str) -> (Child, BufReader<PipeReader>) {
    let file = directory.join("vestibule.toml");
    let json = "[runtime]\nlog_format = \"json\"\ndirectory = \"{dir}/run\"\n";
    let config = format!("{json}{CONFIG}")
        .replace("{dir}", &directory.display().to_string())
        .replace("{certs}", &common::project("certs"));
    std::fs::write(&file, config).expect("a file");
    let (log, stderr) = pipe().expect("a pipe");
    let mut command = vestibule();
    let command = command
        .args(["run", "-c"])
        .arg(&file)
        .env("RUST_LOG", level);
    let spawned = command.stderr(stderr).kill_on_drop(true).spawn();
    // Drops the parent's copy of the writing end.
    command.stderr(Stdio::null());
    (spawned.expect("the binary"), BufReader::new(log))
}

/// The addresses of the listeners.
#[derive(Debug, Default)]
struct Sites {
    front: String,
    proxied: String,
    claimed: String,
}

impl Sites {
    fn learn(&mut self, line: &str) {
        let event: Value = serde_json::from_str(line).expect("a line of the log");
        let message = event["message"].as_str().unwrap_or_default();
        let Some(address) = message.strip_prefix("listening on tcp:") else {
            return;
        };
        match event["listener"].as_str().expect("a name") {
            "front" => self.front = address.to_owned(),
            "proxied" => self.proxied = address.to_owned(),
            _ => self.claimed = address.to_owned(),
        }
    }

    fn are_known(&self) -> bool {
        [&self.front, &self.proxied, &self.claimed]
            .iter()
            .all(|address| !address.is_empty())
    }
}

/// The behaviour of unknown clients.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// They connect and send nothing.
    Silence,
    /// They speak HTTP.
    NoTls,
    /// They send a ClientHello, and reset after the server has made its signature.
    Hello,
    /// They stop in the middle of a ClientHello.
    HalfHello,
    /// They do not trust the certificate.
    Distrust,
    /// They ask for a name without a route.
    Denied,
    /// They connect to a listener that is for load balancers.
    NoProxy,
    /// They wait for a worker, and there is none.
    NoWorker,
    /// They perform a handshake, send something, and close without `close_notify`.
    Truncation,
}

/// How many clients of each kind run at a time. There are more silent ones than
/// `limits.handshaking`. There are fewer waiting for a worker than `limits.pending`, because all
/// waiting clients share that limit.
const FLOODS: [(Flood, usize); 9] = [
    (Flood::Silence, 1200),
    (Flood::NoTls, 20),
    (Flood::Hello, 100),
    (Flood::HalfHello, 300),
    (Flood::Distrust, 4),
    (Flood::Denied, 4),
    (Flood::NoProxy, 20),
    (Flood::NoWorker, 900),
    (Flood::Truncation, 4),
];

async fn flood_for_ever(sites: Arc<Sites>, flood: Flood, number: usize) {
    // Several addresses, because the limits for one address are lower.
    let source = format!("127.0.1.{}", 1 + number % 100);
    loop {
        // Whether it is admitted, and how it ends, does not matter here.
        let _ = visit(&sites, flood, &source).await;
        tokio::task::yield_now().await;
    }
}

async fn visit(sites: &Sites, flood: Flood, source: &str) -> std::io::Result<()> {
    let to = match flood {
        Flood::NoProxy => &sites.proxied,
        Flood::NoWorker => &sites.claimed,
        _ => &sites.front,
    };
    let mut socket = from(source, to).await?;
    let hello = client_hello();
    match flood {
        Flood::Silence | Flood::NoProxy => {}
        Flood::NoTls => socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await?,
        Flood::HalfHello => socket.write_all(&hello[..100]).await?,
        Flood::NoWorker => socket.write_all(b"words").await?,
        Flood::Hello => {
            socket.write_all(&hello).await?;
            socket.read_u8().await?;
            if let Socket::Tcp(stream) = &socket {
                stream.set_zero_linger()?;
            }
            return Ok(());
        }
        Flood::Distrust => {
            let others = Authority::root("other").pem();
            let config = client::config_for(ALL_VERSIONS, &others, None);
            return secure(socket, config.into(), "localhost").await.map(drop);
        }
        Flood::Denied => {
            let config = client::config(ALL_VERSIONS);
            return secure(socket, config, "other.example").await.map(drop);
        }
        Flood::Truncation => {
            let config = client::config(ALL_VERSIONS);
            let mut client = secure(socket, config, "localhost").await?;
            client.write_all(b"words").await?;
            return client.flush().await;
        }
    }
    socket.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn secure(
    socket: Socket,
    config: Arc<ClientConfig>,
    name: &'static str,
) -> std::io::Result<Client> {
    let name = name.try_into().expect("a name");
    TlsConnector::from(config).connect(name, socket).await
}

/// A client from an address of its own.
async fn honest(sites: &Sites) -> Client {
    let socket = from("127.0.0.5", &sites.front).await.expect("a listener");
    client::handshake(socket).await.expect("a handshake")
}

async fn echo(client: &mut Client) {
    client.write_all(b"question").await.expect("open");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.expect("open");
    assert_eq!(&answer, b"question");
}
