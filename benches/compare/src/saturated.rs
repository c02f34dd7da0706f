//! Endless streams through a proxy that is always the slower side: the load discards what arrives
//! without opening it, and sends what was sealed before the measurement.
//!
//! What is not opened cannot be compared. To the client, the beginning of each connection is opened
//! and compared, and that of another connection after the measurement; in between, as many bytes
//! must arrive as were sent. From the client, the backend compares a part of each stream all the
//! time, and every byte that was sealed must arrive.

mod ahead;

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::backend::PAGES;
use crate::client::Client;
use crate::meter::{Meter, Tick};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::session;
use crate::stage::Stage;
use crate::task::{Task, Work};

/// Bytes of a connection that are opened and compared, if there are few of them.
const COMPARED: u64 = 1024 * 1024;
/// The same of all of them together, if there are many.
const COMPARED_IN_ALL: u64 = 64 * 1024 * 1024;
/// Bytes for each read.
const READ: usize = 256 * 1024;
/// Bytes that are discarded at a time.
const DISCARDED: usize = 4 * 1024 * 1024;
/// What the bytes of records may be at most, relative to their payload.
const OVERHEAD: f64 = 1.05;

/// Measures bulk in one direction.
pub(crate) fn run(task: &Task) -> Result<Value> {
    match task.work {
        Work::SaturatedFromClient => ahead::run(task),
        _ => to_client(task),
    }
}

fn to_client(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let config = session::offer(task)?;
    let mut streams = Vec::new();
    for token in 0..task.connections as u64 {
        streams.push(Stream::open(task, config.as_ref(), &stage.poll, token)?);
    }
    let mut scratch = vec![0; DISCARDED];
    let mut meter = Meter::start(task);
    let mut paged_before = 0;
    let mut ready = Vec::new();
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            let stream = &mut streams[event.token as usize];
            stream.go_on(task, &stage.poll, &pattern, *event, &mut scratch)?;
        }
        match meter.tick(streams.iter().all(Stream::is_compared))? {
            Tick::None => {}
            Tick::Begin => {
                paged_before = stage.backend.paged();
                streams
                    .iter_mut()
                    .for_each(|stream| stream.at_begin = stream.discarded);
            }
            Tick::Over(measured) => {
                let bytes = stage.backend.paged() - paged_before;
                check_that_all_moved(&streams)?;
                arrive(task, &mut stage, &mut streams, &pattern, &mut scratch)?;
                let total = stage.backend.paged();
                drop(streams);
                compare_another(task, config.as_ref(), &mut stage, &pattern)?;
                return Ok(measured.answer(json!({
                    "bytes": bytes,
                    "total": total,
                })));
            }
        }
    }
}

fn check_that_all_moved(streams: &[Stream]) -> Result<()> {
    let still = streams.iter().filter(|s| s.discarded == s.at_begin).count();
    ensure!(
        still == 0,
        "{still} of the connections have received nothing"
    );
    Ok(())
}

/// Waits until as much has arrived as the backend has sent: records have their overhead, so what is
/// lost may not be more than that.
fn arrive(
    task: &Task,
    stage: &mut Stage,
    streams: &mut [Stream],
    pattern: &Pattern,
    scratch: &mut [u8],
) -> Result<()> {
    stage.backend.set_paging(false);
    let mut ready = Vec::new();
    let arrived = loop {
        let arrived: u64 = streams.iter().map(Stream::arrived).sum();
        if arrived >= stage.backend.paged() {
            break arrived;
        }
        stage.turn(&mut ready).with_context(|| {
            let sent = stage.backend.paged();
            format!("the backend has sent {sent} bytes, and {arrived} have arrived")
        })?;
        for event in &ready {
            let stream = &mut streams[event.token as usize];
            stream.go_on(task, &stage.poll, pattern, *event, scratch)?;
        }
    };
    ensure!(
        arrived as f64 <= stage.backend.paged() as f64 * OVERHEAD,
        "more has arrived than was sent"
    );
    stage.backend.set_paging(true);
    Ok(())
}

/// Compares the beginning of another connection.
fn compare_another(
    task: &Task,
    config: Option<&Arc<ClientConfig>>,
    stage: &mut Stage,
    pattern: &Pattern,
) -> Result<()> {
    let mut stream = Stream::open(task, config, &stage.poll, 0)?;
    let mut ready = Vec::new();
    while !stream.is_compared() {
        stage.turn(&mut ready)?;
        for event in &ready {
            stream.go_on(task, &stage.poll, pattern, *event, &mut [])?;
        }
    }
    Ok(())
}

struct Stream {
    client: Client,
    begun: bool,
    compared: u64,
    /// Bytes that must be compared.
    least: u64,
    discarded: u64,
    /// The same at the begin of the measurement.
    at_begin: u64,
}

impl Stream {
    fn open(
        task: &Task,
        config: Option<&Arc<ClientConfig>>,
        poll: &Poll,
        token: u64,
    ) -> Result<Self> {
        let client = Client::connect(poll, token, task.target, config, READ)?;
        let mut stream = Self {
            client,
            begun: false,
            compared: 0,
            least: COMPARED.min(COMPARED_IN_ALL / task.connections as u64),
            discarded: 0,
            at_begin: 0,
        };
        stream.begin(task, poll)?;
        Ok(stream)
    }

    /// Payload that was compared, and bytes of records after it.
    fn arrived(&self) -> u64 {
        self.compared + self.client.unopened() as u64 + self.discarded
    }

    fn is_compared(&self) -> bool {
        self.compared >= self.least
    }

    fn go_on(
        &mut self,
        task: &Task,
        poll: &Poll,
        pattern: &Pattern,
        event: Ready,
        scratch: &mut [u8],
    ) -> Result<()> {
        if event.write {
            self.client.flush(poll)?;
        }
        if event.read && self.is_compared() {
            self.discarded += self.client.discard(scratch)? as u64;
        } else if event.read {
            let compared = &mut self.compared;
            self.client.receive(poll, |bytes| {
                ensure!(
                    pattern.matches(*compared, bytes),
                    "wrong bytes at the client, after {compared} of them"
                );
                *compared += bytes.len() as u64;
                Ok(())
            })?;
        }
        self.begin(task, poll)
    }

    /// Selects the behaviour of the backend, after the handshake.
    fn begin(&mut self, task: &Task, poll: &Poll) -> Result<()> {
        if !self.begun && self.client.is_established() {
            self.client.handshake(task.tls)?;
            self.client.send(poll, &[PAGES])?;
            self.begun = true;
        }
        Ok(())
    }
}
