//! Key updates of our own, with clients from other projects.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::relay::tests::over;

/// Each side exceeds this ten times.
const LIMIT: u64 = 40;
const TURNS: u64 = 10 * LIMIT;

#[tokio::test]
async fn openssl_goes_on_when_we_change_our_keys_and_ask_for_its() {
    for ciphers in [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ] {
        served(async |address| {
            let mut client = Command::new("openssl");
            client
                .args(["s_client", "-connect", &address, "-servername", "localhost"])
                .args(["-tls1_3", "-ciphersuites", ciphers, "-quiet"])
                .args(["-verify_return_error", "-CAfile"])
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/certs/ca.pem"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            let mut client = client.spawn().expect("tests/run installs openssl");
            let mut stdin = client.stdin.take().expect("piped");
            let mut lines = BufReader::new(client.stdout.take().expect("piped")).lines();
            for turn in 0..TURNS {
                let line = format!("turn {turn:03}\n");
                stdin.write_all(line.as_bytes()).await.expect("a client");
                let heard = lines.next_line().await.expect("a line");
                assert_eq!(heard.as_deref(), Some(line.trim_end()), "{ciphers}");
            }
            drop(stdin);
            assert_eq!(lines.next_line().await.expect("an end"), None);
            assert!(client.wait().await.expect("our own child").success());
        })
        .await;
    }
}

#[tokio::test]
async fn rustls_goes_on_when_we_change_our_keys_and_ask_for_its() {
    served(async |address| {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let connector = TlsConnector::from(over::config(over::Version::Tls13));
        let name = ServerName::try_from("localhost").expect("a name");
        let client = connector.connect(name, socket).await;
        let mut client = client.expect("a handshake");
        for turn in 0..TURNS {
            let line = format!("turn {turn:03}\n");
            client.write_all(line.as_bytes()).await.expect("a relay");
            let mut heard = [0; LINE];
            client.read_exact(&mut heard).await.expect("a relay");
            assert!(heard == line.as_bytes(), "other bytes than were said");
        }
        assert_eq!(client.read(&mut [0]).await.expect("close_notify"), 0);
        client.shutdown().await.expect("a relay");
    })
    .await;
}

const LINE: usize = "turn 000\n".len();

/// Echoes the turns of a client, over a stream that exceeds its limit again and again.
async fn served<F: Future<Output = ()>>(client: impl FnOnce(String) -> F) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serve = async {
        let (socket, _) = listener.accept().await.expect("a client");
        let acceptor = over::acceptor(crate::tls::Engine::Record);
        let mut stream = moving::accepted(acceptor, socket).await;
        stream.client().set_limit(LIMIT);
        let (mut near, far) = duplex(1_000);
        let echo = async {
            let (mut reader, mut writer) = tokio::io::split(far);
            let mut turns = (&mut reader).take(TURNS * LINE as u64);
            let echoed = tokio::io::copy(&mut turns, &mut writer).await;
            assert_eq!(echoed.expect("a relay"), TURNS * LINE as u64);
            writer.shutdown().await.expect("a relay");
            assert_eq!(reader.read(&mut [0]).await.expect("an end"), 0);
        };
        let traffic = Traffic::default();
        let (end, ()) = tokio::join!(stream.join(&mut near, patient(&traffic)), echo);
        assert_eq!(end, End::Done);
        // Our keys have changed, and the client's soon after the request.
        let (opened, sealed) = stream.client().layer.sequences();
        assert!(sealed <= LIMIT);
        assert!(opened <= LIMIT + 5);
    };
    moving::bounded(async { tokio::join!(serve, client(address)) }).await;
}
