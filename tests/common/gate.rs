//! A worker's side of the gate, written from the contract alone.

use std::io;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::soon;

/// Sends a line and returns the socket.
pub async fn send(gate: &Path, line: &str) -> UnixStream {
    let mut socket = UnixStream::connect(gate).await.expect("the gate");
    // The gate may have said no and closed already; then its answer is there to be read.
    let _ = socket.write_all(format!("{line}\n").as_bytes()).await;
    socket
}

/// Reads one line, without its `\n`, and not a byte behind it.
pub async fn line(socket: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await? {
            b'\n' => return Ok(String::from_utf8(line).expect("ASCII")),
            byte => line.push(byte),
        }
    }
}

/// What the gate said to a line.
#[derive(Debug)]
pub enum Answer {
    Ok(Value, UnixStream),
    No(String),
}

pub async fn ask(gate: &Path, request: &str) -> Answer {
    let mut socket = send(gate, request).await;
    let answer = line(&mut socket).await.expect("an answer");
    read(&answer, socket)
}

pub fn read(answer: &str, socket: UnixStream) -> Answer {
    match answer.split_once(' ') {
        Some(("OK", facts)) => Answer::Ok(serde_json::from_str(facts).expect("facts"), socket),
        Some(("NO", reason)) => Answer::No(reason.to_owned()),
        _ => panic!("neither OK nor NO: {answer:?}"),
    }
}

/// Waits for the next connection of a backend.
pub async fn accept(gate: &Path, backend: &str) -> (Value, UnixStream) {
    match ask(gate, &format!("ACCEPT {backend}")).await {
        Answer::Ok(facts, socket) => (facts, socket),
        Answer::No(reason) => panic!("ACCEPT {backend}: NO {reason}"),
    }
}

pub async fn claim(gate: &Path, id: &str) -> Answer {
    ask(gate, &format!("CLAIM {id}")).await
}

/// Until those who came to the gate before are served: it answers in turn.
pub async fn until_in_place(gate: &Path) {
    let unknown = "00000000-0000-4000-8000-000000000000";
    let answer = soon("an answer", claim(gate, unknown)).await;
    assert!(matches!(answer, Answer::No(reason) if reason == "unknown"));
}

/// A watcher, past the answer to nothing: events come at once.
pub struct Watch(UnixStream);

impl Watch {
    pub async fn new(gate: &Path, backend: &str) -> Self {
        Self(send(gate, &format!("WATCH {backend}")).await)
    }

    /// The next event but pings.
    pub async fn next(&mut self) -> io::Result<String> {
        loop {
            match line(&mut self.0).await?.as_str() {
                "PING" => {}
                event => return Ok(event.to_owned()),
            }
        }
    }

    /// The facts of the next offer.
    pub async fn offer(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("an event");
            if let Some(facts) = event.strip_prefix("OFFER ") {
                return serde_json::from_str(facts).expect("facts");
            }
        }
    }
}
