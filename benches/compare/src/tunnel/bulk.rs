//! Endless streams in tunnels: to the clients or from them.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::backend::{SINK, SOURCE};
use crate::meter::{Meter, Tick};
use crate::mux::{Event, Mux};
use crate::pattern::Pattern;
use crate::stage::Stage;
use crate::task::{Task, Work};

/// Bytes that one stream sends before the next one has its turn.
const WRITE: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Stream {
    pub(super) begun: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
    at_begin: u64,
}

/// Measures the bytes that have arrived and were correct.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let mut muxes = super::tunnels(task, &mut stage)?;
    let mut streams: Vec<Vec<Stream>> = Vec::new();
    for mux in &mut muxes {
        let count = task.connections / task.tunnels;
        streams.push((0..count).map(|_| Stream::default()).collect());
        for _ in 0..count {
            mux.open();
        }
        mux.flush(&stage.poll)?;
    }
    let mut meter = Meter::start(task);
    let (mut sunk_before, mut ready) = (0, Vec::new());
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            let place = event.token as usize;
            let (mux, streams) = (&mut muxes[place], &mut streams[place]);
            mux.go_on(&stage.poll, *event, |id, event| {
                streams[super::place(id)].hear(&event, &pattern)
            })?;
            for (place, stream) in streams.iter_mut().enumerate() {
                let id = place as u32 * 2 + 1;
                stream.speak(mux, id, task.work, &pattern)?;
            }
            mux.flush(&stage.poll)?;
        }
        let all = || streams.iter().flatten();
        match meter.tick(all().all(|stream| stream.begun && stream.sent > 0))? {
            Tick::None => {}
            Tick::Begin => {
                sunk_before = stage.backend.sunk();
                let all = streams.iter_mut().flatten();
                all.for_each(|stream| stream.at_begin = stream.received);
            }
            Tick::Over(measured) => {
                let to_client: u64 = all().map(|s| s.received - s.at_begin).sum();
                let from_client = stage.backend.sunk() - sunk_before;
                let still = all().filter(|s| s.received == s.at_begin).count();
                ensure!(
                    task.work == Work::FromClient || still == 0,
                    "{still} of the streams have received nothing"
                );
                ensure!(
                    task.work == Work::ToClient || from_client > 0,
                    "the backend has received nothing"
                );
                return Ok(measured.answer(json!({
                    "bytes": to_client + from_client,
                    "to_client": to_client,
                    "from_client": from_client,
                })));
            }
        }
    }
}

impl Stream {
    /// Compares what has arrived with the pattern.
    pub(super) fn hear(&mut self, event: &Event<'_>, pattern: &Pattern) -> Result<()> {
        match event {
            Event::Answered => self.begun = true,
            Event::Bytes(bytes) => {
                ensure!(
                    pattern.matches(self.received, bytes),
                    "wrong bytes at the client, after {} of them",
                    self.received
                );
                self.received += bytes.len() as u64;
            }
            Event::Ended => bail!("an endless stream has ended"),
        }
        Ok(())
    }

    /// Selects the behaviour of the backend, and sends what there is room for.
    pub(super) fn speak(
        &mut self,
        mux: &mut Mux,
        id: u32,
        work: Work,
        pattern: &Pattern,
    ) -> Result<()> {
        let role = match work {
            Work::FromClient => SINK,
            _ => SOURCE,
        };
        if self.begun && self.sent == 0 {
            mux.send_all(id, &[role])?;
            self.sent = 1;
        }
        if self.sent > 0 && work == Work::FromClient {
            let piece = pattern.piece(self.sent - 1, WRITE);
            self.sent += mux.send_some(id, piece)? as u64;
        }
        Ok(())
    }
}
