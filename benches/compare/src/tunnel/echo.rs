//! Round trips of messages on streams, and what another stream beside them does to their latency.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::bulk::Stream;
use crate::backend::{DEAF, ECHO};
use crate::echo::summary;
use crate::meter::{Meter, Tick};
use crate::mux::{Event, Mux};
use crate::pattern::Pattern;
use crate::stage::Stage;
use crate::task::{Beside, Task, Work};

/// The time in which the stream beside the others must come to a stop.
const STALLING: Duration = Duration::from_secs(3);
/// A stream that has not moved for this time has stopped.
const STILL: Duration = Duration::from_millis(200);

/// Measures round trips, their CPU time and their latency. With a stream beside them, the answer is about the
/// round trips beside it, and `calm_p99_ns` is from the time before it.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let muxes = super::tunnels(task, &mut stage)?;
    let each = task.connections / task.tunnels;
    let mut echoes = Echoes {
        muxes,
        talks: Vec::new(),
        latencies: Vec::with_capacity(1 << 20),
        beside: None,
        ready: Vec::new(),
    };
    for mux in &mut echoes.muxes {
        let talks = (0..each).map(|_| Talk::open(mux, task.size)).collect();
        echoes.talks.push(talks);
        mux.flush(&stage.poll)?;
    }
    let mut calm = echoes.measure(task, &mut stage, &pattern)?;
    let Some(beside) = task.beside else {
        return Ok(calm);
    };
    echoes.begin_beside(beside, &mut stage, &pattern)?;
    let mut answer = echoes.measure(task, &mut stage, &pattern)?;
    answer["calm_p99_ns"] = calm["p99_ns"].take();
    Ok(answer)
}

struct Echoes {
    muxes: Vec<Mux>,
    talks: Vec<Vec<Talk>>,
    latencies: Vec<u32>,
    /// In the first tunnel, behind its echoes.
    beside: Option<(u32, Beside, Stream)>,
    ready: Vec<crate::poll::Ready>,
}

impl Echoes {
    fn measure(&mut self, task: &Task, stage: &mut Stage, pattern: &Pattern) -> Result<Value> {
        let mut meter = Meter::start(task);
        self.talks.iter_mut().flatten().for_each(|t| t.rounds = 0);
        loop {
            self.turn(stage, pattern)?;
            let mut all = self.talks.iter().flatten();
            match meter.tick(all.all(|talk| talk.rounds > 0))? {
                Tick::None if meter.measuring() => {}
                Tick::None => self.latencies.clear(),
                Tick::Begin => self.talks.iter_mut().flatten().for_each(|t| t.rounds = 0),
                Tick::Over(measured) => {
                    let silent = self.talks.iter().flatten().filter(|t| t.rounds == 0);
                    let silent = silent.count();
                    ensure!(silent == 0, "{silent} of the streams had no answer");
                    return Ok(measured.answer(summary(std::mem::take(&mut self.latencies))));
                }
            }
        }
    }

    fn turn(&mut self, stage: &mut Stage, pattern: &Pattern) -> Result<()> {
        stage.turn(&mut self.ready)?;
        for event in &self.ready {
            let place = event.token as usize;
            let (mux, talks) = (&mut self.muxes[place], &mut self.talks[place]);
            let (beside, mut news) = (&mut self.beside, Vec::new());
            mux.go_on(&stage.poll, *event, |id, event| {
                if let Some((_, _, stream)) = beside.as_mut().filter(|it| it.0 == id) {
                    return stream.hear(&event, pattern);
                }
                let talk = &mut talks[super::place(id)];
                talk.hear(&event, pattern)?;
                if talk.has_news() {
                    news.push(super::place(id));
                }
                Ok(())
            })?;
            for place in news {
                self.latencies
                    .extend(talks[place].go_on(mux, pattern, true)?);
            }
            if let Some((id, kind, stream)) = beside {
                speak(*kind, stream, mux, *id, pattern)?;
            }
            mux.flush(&stage.poll)?;
        }
        Ok(())
    }

    /// Opens the stream beside the others. If it is one to stall, waits until it has.
    fn begin_beside(&mut self, kind: Beside, stage: &mut Stage, pattern: &Pattern) -> Result<()> {
        let id = self.muxes[0].open();
        if kind == Beside::UnreadByClient {
            self.muxes[0].stall(id)?;
        }
        self.beside = Some((id, kind, Stream::default()));
        let (began, mut moved, mut bytes) = (Instant::now(), Instant::now(), 0);
        loop {
            self.turn(stage, pattern)?;
            let Some((_, _, stream)) = &self.beside else {
                return Ok(());
            };
            if stream.sent + stream.received != bytes {
                bytes = stream.sent + stream.received;
                moved = Instant::now();
            }
            let stalls = matches!(kind, Beside::UnreadByClient | Beside::UnreadByBackend);
            match stalls {
                true if bytes > 1 && moved.elapsed() > STILL => return Ok(()),
                true => ensure!(
                    began.elapsed() < STALLING,
                    "it is not stalled after {bytes} bytes"
                ),
                false if bytes > 1 => return Ok(()),
                false => ensure!(began.elapsed() < STALLING, "it does not begin"),
            }
        }
    }
}

fn speak(
    kind: Beside,
    stream: &mut Stream,
    mux: &mut Mux,
    id: u32,
    pattern: &Pattern,
) -> Result<()> {
    match kind {
        Beside::UnreadByBackend if stream.begun && stream.sent == 0 => {
            mux.send_all(id, &[DEAF])?;
            stream.sent = 1;
            Ok(())
        }
        Beside::UnreadByBackend | Beside::FromClient => {
            stream.speak(mux, id, Work::FromClient, pattern)
        }
        Beside::UnreadByClient | Beside::ToClient => stream.speak(mux, id, Work::ToClient, pattern),
    }
}

/// A stream with its current message.
pub(super) struct Talk {
    /// Round trips so far.
    pub(super) rounds: u64,
    id: u32,
    size: usize,
    began: Option<Instant>,
    is_answered: bool,
    offset: u64,
    received: usize,
}

impl Talk {
    pub(super) fn open(mux: &mut Mux, size: usize) -> Self {
        Self {
            rounds: 0,
            id: mux.open(),
            size,
            began: None,
            is_answered: false,
            offset: 0,
            received: 0,
        }
    }

    pub(super) fn hear(&mut self, event: &Event<'_>, pattern: &Pattern) -> Result<()> {
        match event {
            Event::Answered => self.is_answered = true,
            Event::Bytes(bytes) => {
                let at = self.offset + self.received as u64;
                ensure!(pattern.matches(at, bytes), "the echo is wrong");
                self.received += bytes.len();
                ensure!(self.received <= self.size, "more came back than was sent");
            }
            Event::Ended => anyhow::bail!("an echo has ended"),
        }
        Ok(())
    }

    /// Whether it may speak.
    pub(super) fn has_news(&self) -> bool {
        match self.began {
            None => self.is_answered,
            Some(_) => self.received == self.size,
        }
    }

    /// Begins, or ends a round trip and returns its latency in nanoseconds. Begins the next one if there is `more`.
    pub(super) fn go_on(
        &mut self,
        mux: &mut Mux,
        pattern: &Pattern,
        more: bool,
    ) -> Result<Option<u32>> {
        let latency = match self.began {
            None => {
                mux.send_all(self.id, &[ECHO])?;
                None
            }
            Some(began) => {
                self.rounds += 1;
                self.offset += self.size as u64;
                self.received = 0;
                let latency = began.elapsed().as_nanos();
                Some(u32::try_from(latency).unwrap_or(u32::MAX))
            }
        };
        if latency.is_none() || more {
            self.began = Some(Instant::now());
            mux.send_all(self.id, pattern.piece(self.offset, self.size))?;
        }
        Ok(latency)
    }
}
