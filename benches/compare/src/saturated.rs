//! Endless streams through a proxy that is always the slower side: the load discards what arrives
//! without opening it, and sends what was sealed before the measurement.
//!
//! What is not opened cannot be compared. To the client, the beginning of each connection is
//! opened and compared, and that of another connection after the measurement; in between,
//! the number of bytes must fit. From the client, the backend compares a part of each stream all the
//! time, and every byte that was sealed must arrive.

mod ahead;

use anyhow::{Result, ensure};
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
/// What the bytes of records may be, relative to their payload. The sockets between the two ends
/// hold a part of both.
const OVERHEAD: std::ops::Range<f64> = 0.9..1.15;

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
                streams.iter_mut().for_each(|stream| stream.discarded = 0);
            }
            Tick::Over(measured) => {
                let bytes = stage.backend.paged() - paged_before;
                let discarded = check_that_all_fits(&streams, bytes)?;
                drop(streams);
                compare_another(task, config.as_ref(), &mut stage, &pattern)?;
                return Ok(measured.answer(json!({
                    "bytes": bytes,
                    "total": stage.backend.paged(),
                    "discarded": discarded,
                })));
            }
        }
    }
}

fn check_that_all_fits(streams: &[Stream], bytes: u64) -> Result<u64> {
    let still = streams.iter().filter(|s| s.discarded == 0).count();
    ensure!(
        still == 0,
        "{still} of the connections have received nothing"
    );
    let discarded = streams.iter().map(|stream| stream.discarded).sum();
    ensure!(
        OVERHEAD.contains(&(discarded as f64 / bytes as f64)),
        "the backend has sent {bytes} bytes, and {discarded} have arrived"
    );
    Ok(discarded)
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
        };
        stream.begin(task, poll)?;
        Ok(stream)
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
