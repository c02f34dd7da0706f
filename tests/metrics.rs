//! The metrics: each connection is counted exactly once, and every public parser reads the text.

mod common;
mod metrics {
    mod contract;
    mod deploy;
    pub(crate) mod samples;
    mod served;
    mod workers;
}

use common::client::{self, Client, Front};
use common::{project, soon, until};
use metrics::samples::Samples;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::version::TLS12;
use vestibule::{Config, ConnectionFilter, Outcome, Proxy, Running};

/// A proxy on this test's runtime.
struct Site {
    directory: TempDir,
    running: Running,
}

impl Site {
    /// With the listeners `https`, `nowhere`, `refused`, `waits`, and a backend for each but `nowhere`.
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let running = start(&directory, CONFIG).await;
        Self { directory, running }
    }

    fn address(&self, listener: &str) -> String {
        let address = self.running.addresses()[listener].to_string();
        address.trim_start_matches("tcp:").to_owned()
    }

    async fn tls(&self, listener: &str) -> std::io::Result<Client> {
        client::connect(&self.address(listener)).await
    }

    async fn tcp(&self, listener: &str) -> TcpStream {
        let connected = TcpStream::connect(self.address(listener)).await;
        connected.expect("a listener")
    }

    fn sum(&self, wanted: &str) -> f64 {
        Samples::of(&self.running).sum(wanted)
    }

    async fn ended(&self, outcome: Outcome, count: u64) {
        let is_so = || self.running.statistics().ended(outcome) == count;
        until(outcome.as_str(), is_so).await;
    }
}

async fn start(directory: &TempDir, config: &str) -> Running {
    let config: Config = config
        .replace("{dir}", &directory.path().display().to_string())
        .replace("{certs}", &project("certs"))
        .parse()
        .expect("a configuration");
    Proxy::builder(config).bind().await.expect("bound").start()
}

const CONFIG: &str = r#"
[runtime]
directory = "{dir}/run"
max_memory = "64GiB"
[limits]
connections = 3
[timeouts]
backend = "300ms"
[[listener]]
name = "https"
address = "127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
[[listener]]
name = "nowhere"
address = "127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
[[listener]]
name = "refused"
address = "127.0.0.1:0"
[[listener]]
name = "waits"
address = "127.0.0.1:0"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "gone"
to = "unix:{dir}/nothing.sock"
park = false
[[backend]]
name = "app"
to = "gate"
[[route]]
listener = ["https"]
backend = "echo"
[[route]]
listener = ["refused"]
backend = "gone"
[[route]]
listener = ["waits"]
backend = "app"
"#;

/// Sends 1,000 bytes, reads them back, and ends the connection.
async fn exchange(mut client: Client) {
    client.write_all(&[7; 1000]).await.expect("open");
    client.shutdown().await.expect("open");
    let mut back = Vec::new();
    let read = soon("the echo", client.read_to_end(&mut back)).await;
    assert_eq!((read.expect("a clean end"), back.len()), (1000, 1000));
}

/// The counts after the connections of the next test.
const COUNTS: &str = "\
vestibule_connections_total 6
vestibule_connections_total{listener=https,outcome=done} 2
vestibule_connections_total{listener=https,outcome=not_tls} 1
vestibule_connections_total{listener=nowhere,outcome=no_route} 1
vestibule_connections_total{listener=refused,outcome=backend_refused} 1
vestibule_connections_total{listener=waits,outcome=expired} 1
vestibule_connection_seconds_count{listener=https} 3
vestibule_bytes_total{listener=https,direction=in} 2000
vestibule_bytes_total{listener=https,direction=out} 2000
vestibule_handshakes_total 4
vestibule_handshakes_total{listener=https,version=1.3,resumed=false,result=ok} 1
vestibule_handshakes_total{listener=https,version=1.2,resumed=false,result=ok} 1
vestibule_handshakes_total{listener=https,result=not_tls} 1
vestibule_handshakes_total{listener=nowhere,result=no_route} 1
vestibule_handshake_seconds_count 2
vestibule_rendezvous_total 4
vestibule_rendezvous_total{backend=echo,resolution=dialled} 2
vestibule_rendezvous_total{backend=gone,resolution=refused} 1
vestibule_rendezvous_total{backend=app,resolution=expired} 1
vestibule_rendezvous_wait_seconds_count 4
vestibule_backend_up{backend=gone} 1
vestibule_connections_open 0
vestibule_pending 0
vestibule_limit{name=connections} 3
vestibule_limit_used{name=connections} 0
vestibule_limit_peak{name=connections} 1";

#[tokio::test]
async fn each_connection_is_counted_once_with_its_outcome_and_bytes() {
    let site = Site::start().await;
    exchange(site.tls("https").await.expect("a handshake")).await;
    site.ended(Outcome::Done, 1).await;
    let front = Front::Tcp(site.address("https"));
    let old = front.connect_with(&TLS12).await;
    exchange(old.expect("a handshake")).await;
    site.ended(Outcome::Done, 2).await;

    let mut http = site.tcp("https").await;
    http.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("open");
    site.ended(Outcome::NotTls, 1).await;
    let refused = site.tls("nowhere").await;
    refused.expect_err("access_denied");
    site.ended(Outcome::NoRoute, 1).await;
    let _refused = site.tcp("refused").await;
    site.ended(Outcome::BackendRefused, 1).await;
    let _expired = site.tcp("waits").await;
    site.ended(Outcome::Expired, 1).await;
    until("all are closed", || site.running.statistics().open == 0).await;

    for line in COUNTS.lines() {
        let (wanted, count) = line.rsplit_once(' ').expect("a count");
        let count: f64 = count.parse().expect("a number");
        assert_eq!(site.sum(wanted), count, "{wanted}");
    }
    let waited = site.sum("vestibule_rendezvous_wait_seconds_sum{backend=app}");
    assert!((0.3..30.0).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn open_connections_and_their_bytes_are_there_before_they_end() {
    let site = Site::start().await;
    let mut open = site.tls("https").await.expect("a handshake");
    open.write_all(&[7; 500]).await.expect("open");
    soon("the echo", open.read_exact(&mut [0; 500]))
        .await
        .expect("an echo");
    let relaying = "vestibule_connections_open{listener=https,backend=echo,state=relaying}";
    assert_eq!(site.sum(relaying), 1.0);
    let bytes = "vestibule_bytes_total{listener=https,direction=in}";
    assert_eq!(site.sum(bytes), 500.0);
    let _silent = [site.tcp("https").await, site.tcp("https").await];
    until("three are open", || site.running.statistics().open == 3).await;
    let shaking = "vestibule_connections_open{listener=https,backend=,state=handshaking}";
    assert_eq!(site.sum(shaking), 2.0);
    assert_eq!(site.sum("vestibule_limit_used{name=handshaking}"), 2.0);
    assert_eq!(site.sum("vestibule_pending"), 2.0);

    // There is no room for a fourth one.
    let mut fourth = site.tcp("https").await;
    let _ = soon("a close", fourth.read_to_end(&mut Vec::new())).await;
    let over_limit = "vestibule_connections_total{listener=https,outcome=over_limit}";
    assert_eq!(site.sum(over_limit), 1.0);
    // It never had a record.
    assert_eq!(
        site.sum("vestibule_connection_seconds_count{listener=https}"),
        0.0
    );

    site.running.kill(&ConnectionFilter::all());
    site.ended(Outcome::Killed, 3).await;
    assert_eq!(site.sum(bytes), 500.0);
    assert_eq!(site.sum("vestibule_limit_peak{name=connections}"), 3.0);
    assert!(!Samples::of(&site.running).has(relaying));
}

#[tokio::test]
async fn workers_at_the_gate_are_counted_by_what_they_do() {
    let site = Site::start().await;
    let gate = site.directory.path().join("run/gate.sock");
    let ask = async |line: &str| {
        let mut worker = tokio::net::UnixStream::connect(&gate)
            .await
            .expect("a gate");
        worker.write_all(line.as_bytes()).await.expect("open");
        worker
    };
    let is = async |wanted: &str, count: f64| {
        until(wanted, || site.sum(wanted) == count).await;
    };
    let watcher = ask("WATCH app\n").await;
    is("vestibule_gate_clients{kind=watch}", 1.0).await;
    let mut worker = ask("ACCEPT app\n").await;
    is("vestibule_gate_clients{kind=accept}", 1.0).await;
    let client = site.tcp("waits").await;
    // It has the connection when it has read its whole line.
    while soon("OK", worker.read_u8()).await.expect("OK") != b'\n' {}
    is(
        "vestibule_rendezvous_total{backend=app,resolution=claimed}",
        1.0,
    )
    .await;
    is("vestibule_gate_clients{kind=accept}", 0.0).await;
    drop((client, worker, watcher));

    let path = site.directory.path().join("app.sock");
    let app = tokio::net::UnixListener::bind(&path).expect("a path");
    let registered = ask(&format!("REGISTER app unix:{}\n", path.display())).await;
    is("vestibule_gate_clients{kind=register}", 1.0).await;
    let _client = site.tcp("waits").await;
    let _served = soon("a dial", app.accept()).await.expect("a dial");
    is(
        "vestibule_rendezvous_total{backend=app,resolution=dialled}",
        1.0,
    )
    .await;
    // The path is the worker's choice, and is no label.
    assert_eq!(
        site.sum("vestibule_backend_up{backend=app,address=registered}"),
        1.0
    );
    let open = "vestibule_backend_connections{backend=app,address=registered}";
    assert_eq!(site.sum(open), 1.0);
    assert_eq!(
        site.sum("vestibule_backend_dial_seconds_count{backend=app}"),
        1.0
    );
    drop(registered);
    is("vestibule_gate_clients{kind=register}", 0.0).await;
    assert!(!Samples::of(&site.running).has("vestibule_backend_up{backend=app}"));
}
