//! From the client: records are sealed in batches, and each batch is measured while it is sent.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::backend::DRAIN;
use crate::buffer::Buffer;
use crate::client::{Client, Room};
use crate::meter::{Measured, Window};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::session;
use crate::stage::Stage;
use crate::task::Task;

/// Payload of a batch, in all connections together: a quarter of a second at a gigabyte per second.
const BATCH: usize = 256 * 1024 * 1024;
/// The part of a batch that fills the sockets, before the measurement starts.
const FILLING: usize = 8;
/// Payload that is sealed at a time: full records.
const PIECE: usize = 128 * 1024;
/// Bytes for each write: more than a socket holds.
const WRITE: usize = 1024 * 1024;
/// Tickets are all that a client reads.
const READ: usize = 16 * 1024;

/// Measures batches until they have taken the time of the task.
pub(super) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let config = session::offer(task)?;
    let mut streams = Vec::new();
    for token in 0..task.connections as u64 {
        let client = Client::connect(&stage.poll, token, task.target, config.as_ref(), READ)?;
        streams.push(Stream {
            client,
            payload: 0,
            sealed: Buffer::default(),
            written: 0,
        });
    }
    establish(task, &mut stage, &mut streams)?;
    let batch = BATCH / task.connections / PIECE * PIECE;
    ensure!(batch > 0, "too many connections");
    let mut warm = task.warm_up().is_zero();
    let (mut total, mut bytes) = (Measured::default(), 0);
    while total.wall() < task.measure() {
        for stream in &mut streams {
            stream.seal(&pattern, batch)?;
        }
        let (measured, moved) = send(task, &mut stage, &mut streams)?;
        arrive(&mut stage, &mut streams)?;
        if warm {
            total += measured;
            bytes += moved;
        }
        warm = true;
    }
    Ok(total.answer(json!({ "bytes": bytes, "total": stage.backend.sunk() })))
}

fn establish(task: &Task, stage: &mut Stage, streams: &mut [Stream]) -> Result<()> {
    let mut ready = Vec::new();
    // Without TLS there is nothing to wait for.
    while !streams.iter().all(|s| s.client.is_established()) {
        stage.turn(&mut ready)?;
        for event in &ready {
            let client = &mut streams[event.token as usize].client;
            client.receive(&stage.poll, nothing)?;
        }
    }
    for stream in streams {
        stream.client.handshake(task.tls)?;
        stream.client.send(&stage.poll, &[DRAIN])?;
    }
    Ok(())
}

/// Sends until one of the connections has no more. Returns the time, and the bytes that have arrived
/// in it.
fn send(task: &Task, stage: &mut Stage, streams: &mut [Stream]) -> Result<(Measured, u64)> {
    let batch: usize = streams.iter().map(|stream| stream.sealed.len()).sum();
    let mut window = None;
    let mut ready = Vec::new();
    for stream in &mut *streams {
        stream.written = 0;
        stream.client.ask_for_room(&stage.poll, Room::Always)?;
    }
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            streams[event.token as usize].go_on(&stage.poll, *event)?;
        }
        let written: usize = streams.iter().map(|stream| stream.written).sum();
        if window.is_none() && written >= batch / FILLING {
            window = Some((Window::open(task)?, stage.backend.sunk()));
        }
        if streams.iter().any(|stream| stream.sealed.len() == 0) {
            let silent = streams.iter().filter(|s| s.written == 0).count();
            ensure!(silent == 0, "{silent} of the connections have sent nothing");
            let (window, before) = window.expect("more than the filling was written");
            return Ok((window.close()?, stage.backend.sunk() - before));
        }
    }
}

/// Waits until all that was sealed has arrived.
fn arrive(stage: &mut Stage, streams: &mut [Stream]) -> Result<()> {
    let payload: u64 = streams.iter().map(|stream| stream.payload).sum();
    let mut ready = Vec::new();
    while stage.backend.sunk() < payload {
        stage.turn(&mut ready)?;
        for event in &ready {
            streams[event.token as usize].go_on(&stage.poll, *event)?;
        }
    }
    ensure!(
        stage.backend.sunk() == payload,
        "more has arrived than was sent"
    );
    Ok(())
}

struct Stream {
    client: Client,
    /// Bytes of the pattern that were sealed.
    payload: u64,
    sealed: Buffer,
    /// Bytes of this batch that the socket has accepted.
    written: usize,
}

impl Stream {
    fn seal(&mut self, pattern: &Pattern, count: usize) -> Result<()> {
        // At once, so that it does not grow in steps.
        self.sealed.room(count + count / 64);
        for _ in 0..count / PIECE {
            let bytes = pattern.piece(self.payload, PIECE);
            self.client.seal(bytes, &mut self.sealed)?;
            self.payload += PIECE as u64;
        }
        Ok(())
    }

    /// One write for each event, so that all connections get their turn.
    fn go_on(&mut self, poll: &Poll, event: Ready) -> Result<()> {
        if event.read {
            self.client.receive(poll, nothing)?;
        }
        if !event.write {
            return Ok(());
        }
        let most = self.sealed.len().min(WRITE);
        let count = self.client.write(&self.sealed.filled()[..most])?;
        self.sealed.consume(count);
        self.written += count;
        if self.sealed.len() == 0 {
            self.client.ask_for_room(poll, Room::WhenShort)?;
        }
        Ok(())
    }
}

fn nothing(bytes: &[u8]) -> Result<()> {
    ensure!(bytes.is_empty(), "the backend was to send nothing");
    Ok(())
}
