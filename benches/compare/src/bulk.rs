//! Endless streams: to the clients, from them, or both at the same time.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::backend::{AHEAD, SINK, SINK_AND_SOURCE, SOURCE};
use crate::client::{Client, Room};
use crate::meter::{Meter, Tick};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::session;
use crate::stage::Stage;
use crate::task::{Task, Work};

/// Bytes per read: more than the proxy reads, so that the clients are lighter.
const READ: usize = 256 * 1024;
/// Bytes that are sealed at a time: four records.
const WRITE: usize = 64 * 1024;

/// Measures the bytes that have arrived and were correct, in both directions.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let config = session::offer(task)?;
    let mut streams = Vec::new();
    for token in 0..task.connections as u64 {
        let client = Client::connect(&stage.poll, token, task.target, config.as_ref(), READ)?;
        let mut stream = Stream {
            client,
            begun: false,
            sent: 0,
            received: 0,
            at_begin: 0,
        };
        stream.begin(task, &stage.poll)?;
        streams.push(stream);
    }
    let mut meter = Meter::start(task);
    let mut sunk_before = 0;
    let mut ready = Vec::new();
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            let stream = &mut streams[event.token as usize];
            stream.go_on(task, &stage.poll, &pattern, *event)?;
        }
        match meter.tick(streams.iter().all(|stream| stream.begun))? {
            Tick::None => {}
            Tick::Begin => {
                sunk_before = stage.backend.sunk();
                streams
                    .iter_mut()
                    .for_each(|stream| stream.at_begin = stream.received);
            }
            Tick::Over(measured) => {
                let to_client: u64 = streams.iter().map(|s| s.received - s.at_begin).sum();
                let from_client = stage.backend.sunk() - sunk_before;
                check_that_all_moved(task, &streams, from_client)?;
                let received: u64 = streams.iter().map(|s| s.received).sum();
                return Ok(measured.answer(json!({
                    "bytes": to_client + from_client,
                    "total": received + stage.backend.sunk(),
                    "to_client": to_client,
                    "from_client": from_client,
                })));
            }
        }
    }
}

fn check_that_all_moved(task: &Task, streams: &[Stream], from_client: u64) -> Result<()> {
    if task.work != Work::FromClient {
        let still = streams.iter().filter(|s| s.received == s.at_begin).count();
        ensure!(
            still == 0,
            "{still} of the connections have received nothing"
        );
    }
    ensure!(
        task.work == Work::ToClient || from_client > 0,
        "the backend has received nothing"
    );
    Ok(())
}

struct Stream {
    client: Client,
    begun: bool,
    sent: u64,
    received: u64,
    at_begin: u64,
}

impl Stream {
    fn go_on(&mut self, task: &Task, poll: &Poll, pattern: &Pattern, event: Ready) -> Result<()> {
        if event.read {
            let received = &mut self.received;
            self.client.receive(poll, |bytes| {
                ensure!(
                    pattern.matches(*received, bytes),
                    "wrong bytes at the client, after {received} of them"
                );
                *received += bytes.len() as u64;
                Ok(())
            })?;
        }
        if event.write {
            self.client.flush(poll)?;
        }
        self.begin(task, poll)?;
        // One piece for each event, so that all connections get their turn.
        if event.write && self.client.backlog() == 0 && self.has_more(task) {
            self.client.send(poll, pattern.piece(self.sent, WRITE))?;
            self.sent += WRITE as u64;
        }
        self.ask_for_room(task, poll)
    }

    fn ask_for_room(&mut self, task: &Task, poll: &Poll) -> Result<()> {
        let room = match self.has_more(task) {
            true => Room::Always,
            false => Room::WhenShort,
        };
        self.client.ask_for_room(poll, room)
    }

    fn has_more(&self, task: &Task) -> bool {
        let is_ahead = self.sent > self.received + AHEAD;
        match task.work {
            Work::FromClient => self.begun,
            Work::BothWays => self.begun && !is_ahead,
            _ => false,
        }
    }

    /// Selects the behaviour of the backend, after the handshake.
    fn begin(&mut self, task: &Task, poll: &Poll) -> Result<()> {
        if self.begun || !self.client.is_established() {
            return Ok(());
        }
        self.client.handshake(task.tls)?;
        let role = match task.work {
            Work::FromClient => SINK,
            Work::BothWays => SINK_AND_SOURCE,
            _ => SOURCE,
        };
        self.client.send(poll, &[role])?;
        self.begun = true;
        self.ask_for_room(task, poll)
    }
}
