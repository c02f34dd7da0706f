//! Hostile clients of the admin API.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::common::soon;
use crate::common::vestibule::Vestibule;
use crate::{ECHO, ask_of};

async fn connect(vestibule: &Vestibule) -> UnixStream {
    let socket = vestibule.path("run/admin.sock");
    UnixStream::connect(socket).await.expect("a socket")
}

async fn rest(client: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let read = soon("the end", client.read_to_end(&mut answer)).await;
    match read {
        Ok(_) => {}
        // It has closed with bytes of ours unread.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn silent_clients_and_slow_heads_are_cut_and_beyond_64_clients_are_refused() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut clients = Vec::new();
    for index in 0..64 {
        let mut client = connect(&vestibule).await;
        if index % 2 == 0 {
            let head = b"GET /healthz HTTP/1.1\r\nHost: ";
            client.write_all(head).await.expect("room");
        }
        clients.push(client);
    }
    let mut late = connect(&vestibule).await;
    let refused = rest(&mut late).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\"code\":\"busy\""), "{refused}");
    for client in &mut clients {
        let answer = rest(client).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(ask_of(&vestibule, "/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn junk_long_heads_and_long_bodies_are_refused() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut junk = connect(&vestibule).await;
    // It may close before it has read everything.
    let _ = junk.write_all(&vec![0xff; 1_000_000]).await;
    assert!(!rest(&mut junk).await.contains(" 200 "));

    let mut long = connect(&vestibule).await;
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let _ = long.write_all(head.as_bytes()).await;
    let answer = rest(&mut long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let mut body = connect(&vestibule).await;
    let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nVestibule-Admin: 1\r\n\
                Connection: close\r\nContent-Length: 70000\r\n\r\n";
    let _ = body.write_all(head.as_bytes()).await;
    let _ = body.write_all(&[b'x'; 70_000]).await;
    let answer = rest(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let status = ask_of(&vestibule, "/v1/status", &[]).await.json();
    assert_eq!(status["reloads"]["requested"], 0);
}
