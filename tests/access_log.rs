//! `runtime.access_log`: which connections have a line in the log when they end, and what it says.

mod common;

use std::sync::Arc;

use common::backend::Backend;
use common::client::{self, Front};
use common::vestibule::{RUNTIME, Vestibule, message};
use common::{bytes, soon};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TLS: &str = "[listener.tls]\ncertificates = [ { chain = \"{certs}/server.pem\", \
                   key = \"{certs}/server-key.pem\" } ]\n";

/// Starts with the log level of a user, which is `info`, or another one.
async fn start(mode: &str, level: Option<&str>, rest: &str) -> Vestibule {
    let listener = "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\n";
    let config = format!("{RUNTIME}{mode}\n{listener}{rest}");
    let directory = Arc::new(tempdir().expect("a directory"));
    let vestibule = Vestibule::spawn(directory, &config, |mut command| {
        match level {
            Some(level) => command.env("RUST_LOG", level),
            None => command.env_remove("RUST_LOG"),
        };
        command
    });
    vestibule.until_started().await;
    vestibule
}

/// Its log, after a SIGTERM.
async fn log(mut vestibule: Vestibule) -> Vec<Value> {
    vestibule.signal(Signal::TERM);
    assert_eq!(vestibule.wait().await.code(), Some(0));
    vestibule.whole_log().await
}

fn closed(log: &[Value]) -> Vec<&Value> {
    let lines = log.iter();
    lines
        .filter(|it| message(it) == "connection closed")
        .collect()
}

/// Sends a kilobyte through TLS to an echo, and closes.
async fn echo(address: &str) {
    let mut client = client::connect(address).await.expect("TLS");
    bytes::send(&mut client, 1, 1000).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 1, 1000)).await;
    client.shutdown().await.expect("open");
    let _ = client.read(&mut [0]).await;
}

#[tokio::test]
async fn with_connections_each_has_one_line_that_says_who_what_and_why() {
    let echo_behind_tls = format!("{TLS}[[backend]]\nname = \"app\"\nto = \"echo\"\n");
    // At level `debug`, there is no second line.
    for level in [None, Some("debug")] {
        let mode = "access_log = \"connections\"";
        let vestibule = start(mode, level, &echo_behind_tls).await;
        let address = vestibule.address("front");
        for _ in 0..3 {
            echo(&address).await;
        }
        vestibule.said("connection closed", 3).await;
        let mut scanner = TcpStream::connect(&address).await.expect("a listener");
        scanner
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("open");
        let _ = scanner.read_to_end(&mut Vec::new()).await;
        let log = log(vestibule).await;
        let lines = closed(&log);
        assert_eq!(lines.len(), 4, "{log:#?}");
        for line in &lines[..3] {
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["id"].as_str().map(str::len), Some(8), "{line}");
            assert_eq!(line["listener"], "front");
            assert!(
                line["peer"]
                    .as_str()
                    .is_some_and(|it| it.starts_with("127.0.0.1:"))
            );
            assert_eq!(line["sni"], "localhost");
            assert_eq!(line["backend"], "app");
            assert_eq!(line["outcome"], "done");
            assert_eq!(
                (&line["bytes_in"], &line["bytes_out"]),
                (&1000.into(), &1000.into())
            );
            assert!(
                line["seconds"]
                    .as_f64()
                    .is_some_and(|it| it > 0.0 && it < 60.0)
            );
            assert_eq!(line["tls"], "1.3");
            assert!(
                line["cipher"]
                    .as_str()
                    .is_some_and(|it| it.starts_with("TLS13_"))
            );
            assert_eq!(line["cause"], "both sides closed");
        }
        let line = lines[3];
        assert_eq!(
            (&line["outcome"], &line["cause"]),
            (&"not_tls".into(), &"the first bytes were not TLS".into())
        );
        assert!(line["tls"].is_null() && line["backend"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn by_default_only_faults_of_the_backend_have_a_line_each() {
    let backend = Backend::tcp().await;
    let to = format!(
        "[[backend]]\nname = \"app\"\nto = \"{}\"\n",
        backend.address()
    );
    let vestibule = start("", None, &format!("{TLS}{to}")).await;
    let front = Front::Tcp(vestibule.address("front"));
    // Answers the first byte, and does what the second one says.
    let serving = backend.serve(|mut socket: client::Socket| async move {
        let _ = socket.read_u8().await;
        let _ = socket.write_all(b"answer").await;
        match (socket.read_u8().await, &socket) {
            (Ok(b'r'), client::Socket::Tcp(socket)) => {
                socket.set_zero_linger().expect("an open socket");
            }
            _ => drop(socket.read_to_end(&mut Vec::new()).await),
        }
    });
    for word in [b'd', b'r'] {
        let mut client = front.connect().await.expect("TLS");
        for byte in [b'?', word] {
            client.write_u8(byte).await.expect("open");
            client.flush().await.expect("open");
            if byte == b'?' {
                let answer = soon("an answer", client.read_exact(&mut [0; 6])).await;
                answer.expect("open");
            }
        }
        if word == b'd' {
            client.shutdown().await.expect("open");
        }
        let _ = soon("the end", client.read_to_end(&mut Vec::new())).await;
    }
    vestibule.said("connection closed", 1).await;
    drop(serving);
    let log = log(vestibule).await;
    let lines = closed(&log);
    assert_eq!(lines.len(), 1, "{log:#?}");
    let line = lines[0];
    assert_eq!(
        (&line["level"], &line["outcome"]),
        (&"WARN".into(), &"backend_reset".into())
    );
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&2.into(), &6.into())
    );
    assert_eq!(
        (&line["sni"], &line["backend"]),
        (&"localhost".into(), &"app".into())
    );
}

#[tokio::test]
async fn a_backend_that_is_down_does_not_flood_the_log() {
    const CLIENTS: usize = 200;
    let rest = "[[backend]]\nname = \"app\"\nto = \"unix:/nonexistent\"\npark = false\n";
    let vestibule = start("", None, rest).await;
    let address = vestibule.address("front");
    let begun = std::time::Instant::now();
    for _ in 0..CLIENTS {
        // The reset of a refused client may come before its connect returns.
        if let Ok(mut client) = TcpStream::connect(&address).await {
            let _ = soon("the end", client.read_to_end(&mut Vec::new())).await;
        }
    }
    let seconds = begun.elapsed().as_secs() as usize;
    let log = log(vestibule).await;
    let lines = closed(&log).len();
    assert!(
        (1..=10 * (seconds + 1)).contains(&lines),
        "{lines} lines in {seconds} s"
    );
    let summaries = log.iter().filter(|it| it["reason"] == "backend_refused");
    let counted: u64 = summaries.filter_map(|it| it["clients"].as_u64()).sum();
    assert_eq!(counted, CLIENTS as u64);
}
