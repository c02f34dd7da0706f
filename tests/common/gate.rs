//! A worker's side of the gate, written from its documentation alone.

use std::io;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;

use super::soon;

/// Sends a line and returns the socket.
pub async fn send(gate: &Path, line: &str) -> UnixStream {
    let mut socket = UnixStream::connect(gate).await.expect("the gate");
    // The gate may have refused and closed already; its answer can still be read.
    let _ = socket.write_all(format!("{line}\n").as_bytes()).await;
    socket
}

/// Reads one line without its `\n`, and no byte after it.
pub async fn line(socket: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await? {
            b'\n' => return Ok(String::from_utf8(line).expect("ASCII")),
            byte => line.push(byte),
        }
    }
}

/// The gate's answer to a line.
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

/// Waits until the gate has read the lines of earlier clients: it answers in order, if only with
/// `busy`.
pub async fn until_in_place(gate: &Path) {
    let unknown = "00000000-0000-4000-8000-000000000000";
    let answer = soon("an answer", claim(gate, unknown)).await;
    assert!(matches!(&answer, Answer::No(reason) if ["unknown", "busy"].contains(&&**reason)));
}

/// A watcher that the gate has registered. It gets only lines, so it may buffer.
pub struct Watch(Lines<BufReader<UnixStream>>);

impl Watch {
    pub async fn new(gate: &Path, backend: &str) -> Self {
        let socket = send(gate, &format!("WATCH {backend}")).await;
        until_in_place(gate).await;
        Self(BufReader::new(socket).lines())
    }

    /// The next event that is not a ping.
    pub async fn next(&mut self) -> io::Result<String> {
        loop {
            match self.0.next_line().await? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(line) if line == "PING" => {}
                Some(event) => return Ok(event),
            }
        }
    }

    /// The facts of the next offer.
    pub async fn offer(&mut self) -> Value {
        loop {
            let event = soon("an event", self.next()).await.expect("an event");
            if let Some(facts) = event.strip_prefix("OFFER ") {
                return serde_json::from_str(facts).expect("facts");
            }
        }
    }
}
