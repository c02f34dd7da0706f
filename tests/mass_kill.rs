//! One request ends all connections of an identity, and no other, however many there are.

mod common;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::admin::{WRITE, ask};
use common::client::{Front, Socket, config_for};
use common::pki::{Authority, Issued, Subject};
use common::resources::raise_own_limit;
use common::vestibule::Vestibule;
use common::{project, soon, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig};

const ALICE: usize = 1000;
const BOB: usize = 8000;
/// Of those that stay, some keep their TLS and are used afterwards. The rest keeps the socket alone, which
/// takes a tenth of the memory.
const USED: usize = 100;

const CONFIG: &str = r#"
[limits]
connections_per_ip = "unlimited"
connections_per_identity = "unlimited"
[[listener]]
name = "mutual"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
client_auth = "required"
client_ca = ["{dir}/ca.pem"]
[[backend]]
name = "echo"
to = "echo"
"#;

#[tokio::test]
async fn a_thousand_of_nine_thousand_connections_end_in_one_call_within_a_second() {
    raise_own_limit();
    let root = Authority::root("clients");
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    std::fs::write(directory.path().join("ca.pem"), root.pem()).expect("ours");
    // At the debug level, each connection would have its lines in the log.
    let quiet = |mut command: tokio::process::Command| {
        command.env("RUST_LOG", "info");
        command
    };
    let vestibule = Vestibule::spawn(directory, CONFIG, quiet);
    vestibule.until_started().await;
    let front = Front::Tcp(vestibule.address("mutual"));
    let connector = |name| TlsConnector::from(config(&root.issue(&Subject::named(name))));
    let (alice, bob) = (connector("alice"), connector("bob"));
    // Among each other, as they come in life.
    let mut opened = Vec::new();
    for part in 0..10 {
        opened.push((part, open(&front, &alice, ALICE / 10).await));
        opened.push((part + 10, open(&front, &bob, BOB / 10).await));
    }
    let (theirs, others): (Vec<_>, Vec<_>) = opened.into_iter().partition(|(part, _)| *part < 10);
    let sockets = |all: Vec<(usize, Vec<TlsStream<Socket>>)>| all.into_iter().flat_map(|it| it.1);
    let ended: Vec<TcpStream> = sockets(theirs).map(socket).collect();
    let mut used: VecDeque<_> = sockets(others).collect();
    let kept: Vec<TcpStream> = used.drain(USED..).map(socket).collect();
    assert_eq!(open_connections(&status(&vestibule).await), ALICE + BOB);

    let asked = Instant::now();
    let delete = [&["-X", "DELETE"], &WRITE[..]].concat();
    let socket = vestibule.path("run/admin.sock");
    let answer = ask(&socket, "/v1/connections?identity=cn:alice", &delete).await;
    let took = asked.elapsed();
    assert_eq!(answer.json()["killed"], ALICE, "{answer:?}");
    println!("{ALICE} of {} connections ended in {took:?}", ALICE + BOB);
    assert!(took < Duration::from_secs(1), "{took:?}");

    for socket in ended {
        soon("the end of a connection", end_of(socket)).await;
    }
    let status = soon("the count", async {
        loop {
            let status = status(&vestibule).await;
            if open_connections(&status) == BOB {
                return status;
            }
        }
    })
    .await;
    let outcomes = &status["connections"]["ended"];
    assert_eq!(outcomes, &serde_json::json!({ "killed": ALICE }));
    let metrics = ask(&socket, "/metrics", &[]).await.body;
    let line = format!("outcome=\"killed\"}} {ALICE}");
    assert!(metrics.lines().any(|it| it.contains(&line)), "{metrics}");
    for socket in &kept {
        let read = socket.try_read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock));
    }
    for client in &mut used {
        echo(client).await;
    }
}

fn config(certificate: &Issued) -> Arc<ClientConfig> {
    let authority = std::fs::read_to_string(project("certs/ca.pem")).expect("the CA");
    Arc::new(config_for(ALL_VERSIONS, &authority, Some(certificate)))
}

/// Clients whose connections are relayed, some at a time.
async fn open(front: &Front, connector: &TlsConnector, count: usize) -> Vec<TlsStream<Socket>> {
    const AT_A_TIME: usize = 32;
    let mut opening = JoinSet::new();
    let mut clients = Vec::new();
    while clients.len() < count {
        while opening.len() < AT_A_TIME && clients.len() + opening.len() < count {
            let (front, connector) = (front.clone(), connector.clone());
            opening.spawn(async move {
                let socket = front.socket().await.expect("a connection");
                let name = "localhost".try_into().expect("a name");
                let mut client = connector.connect(name, socket).await.expect("a handshake");
                echo(&mut client).await;
                client
            });
        }
        let opened = within(Duration::from_secs(60), "a client", opening.join_next()).await;
        clients.push(opened.expect("one is opening").expect("no panic"));
    }
    clients
}

async fn echo(client: &mut TlsStream<Socket>) {
    client.write_all(b"hello").await.expect("open");
    let mut answer = [0; 5];
    soon("an echo", client.read_exact(&mut answer))
        .await
        .expect("open");
}

fn socket(client: TlsStream<Socket>) -> TcpStream {
    match client.into_inner().0 {
        Socket::Tcp(stream) => stream,
        Socket::Unix(_) => panic!("connected over TCP"),
    }
}

/// Reads the close_notify and the end.
async fn end_of(mut socket: TcpStream) {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("an orderly end");
    assert!(!rest.is_empty(), "no close_notify");
}

async fn status(vestibule: &Vestibule) -> Value {
    ask(&vestibule.path("run/admin.sock"), "/v1/status", &[])
        .await
        .json()
}

fn open_connections(status: &Value) -> usize {
    let open = status["connections"]["open"].as_u64().expect("a number");
    open as usize
}
