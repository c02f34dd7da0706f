//! Round trips of messages, one after the other on each of several connections.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};

use crate::backend::ECHO;
use crate::client::Client;
use crate::meter::{Meter, Tick};
use crate::pattern::Pattern;
use crate::poll::{Poll, Ready};
use crate::session;
use crate::stage::Stage;
use crate::task::{Task, Tls};

/// A little more than a record with the largest message.
const READ: usize = 32 * 1024;

/// Measures round trips, their CPU time and their latency.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let config = session::offer(task)?;
    let mut talks = Vec::new();
    for token in 0..task.connections as u64 {
        talks.push(Talk::open(task, config.as_ref(), &stage, &pattern, token)?);
    }
    let mut meter = Meter::start(task);
    let mut latencies: Vec<u32> = Vec::with_capacity(1 << 20);
    let mut total = 0u64;
    let mut ready = Vec::new();
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            let talk = &mut talks[event.token as usize];
            if let Some(latency) = talk.go_on(&stage.poll, &pattern, *event)? {
                talk.send(&stage.poll, &pattern)?;
                total += 1;
                if meter.measuring() {
                    latencies.push(latency);
                }
            }
        }
        match meter.tick(talks.iter().all(|talk| talk.rounds > 0))? {
            Tick::None => {}
            Tick::Begin => talks.iter_mut().for_each(|talk| talk.rounds = 0),
            Tick::Over(measured) => {
                let silent = talks.iter().filter(|talk| talk.rounds == 0).count();
                ensure!(silent == 0, "{silent} of the connections had no answer");
                let mut answer = measured.answer(summary(latencies));
                answer["total"] = total.into();
                return Ok(answer);
            }
        }
    }
}

/// The number of round trips and their latencies.
pub(crate) fn summary(mut latencies: Vec<u32>) -> Value {
    let mut answer = quantiles(&mut latencies);
    answer["round_trips"] = latencies.len().into();
    answer
}

/// Of latencies in nanoseconds.
pub(crate) fn quantiles(latencies: &mut [u32]) -> Value {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies[index.min(latencies.len() - 1)]
    };
    json!({
        "p50_ns": at(0.5),
        "p99_ns": at(0.99),
        "p999_ns": at(0.999),
    })
}

/// A connection with its current message.
pub(crate) struct Talk {
    /// Round trips so far.
    pub(crate) rounds: u64,
    client: Client,
    tls: Tls,
    size: usize,
    began: Option<Instant>,
    offset: u64,
    received: usize,
}

impl Talk {
    /// Connects, and starts the handshake or, without TLS, the first round trip.
    pub(crate) fn open(
        task: &Task,
        config: Option<&Arc<ClientConfig>>,
        stage: &Stage,
        pattern: &Pattern,
        token: u64,
    ) -> Result<Self> {
        let client = Client::connect(&stage.poll, token, task.target, config, READ)?;
        let mut talk = Self {
            rounds: 0,
            client,
            tls: task.tls,
            size: task.size,
            began: None,
            offset: 0,
            received: 0,
        };
        talk.begin(&stage.poll, pattern)?;
        Ok(talk)
    }

    /// Handles an event. Returns the latency in nanoseconds after a completed round trip.
    pub(crate) fn go_on(
        &mut self,
        poll: &Poll,
        pattern: &Pattern,
        event: Ready,
    ) -> Result<Option<u32>> {
        if event.write {
            self.client.flush(poll)?;
        }
        if event.read {
            let at = self.offset;
            let received = &mut self.received;
            self.client.receive(poll, |bytes| {
                ensure!(
                    pattern.matches(at + *received as u64, bytes),
                    "the echo is wrong"
                );
                *received += bytes.len();
                Ok(())
            })?;
        }
        let Some(began) = self.began else {
            self.begin(poll, pattern)?;
            return Ok(None);
        };
        ensure!(self.received <= self.size, "more came back than was sent");
        if self.received < self.size {
            return Ok(None);
        }
        self.rounds += 1;
        self.offset += self.size as u64;
        self.received = 0;
        Ok(Some(
            u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX),
        ))
    }

    /// Sends the next message.
    pub(crate) fn send(&mut self, poll: &Poll, pattern: &Pattern) -> Result<()> {
        self.send_as_of(Instant::now(), poll, pattern)
    }

    /// Sends the next message. Its latency counts from `began`, when it should have been sent.
    pub(crate) fn send_as_of(
        &mut self,
        began: Instant,
        poll: &Poll,
        pattern: &Pattern,
    ) -> Result<()> {
        self.began = Some(began);
        self.client
            .send(poll, pattern.piece(self.offset, self.size))
    }

    /// Returns the connection when no message is in progress.
    pub(crate) fn into_client(self) -> Client {
        self.client
    }

    fn begin(&mut self, poll: &Poll, pattern: &Pattern) -> Result<()> {
        if self.client.is_established() {
            let kind = self.client.handshake(self.tls)?;
            ensure!(
                kind.is_none_or(|kind| kind == HandshakeKind::Full),
                "resumed: {kind:?}"
            );
            self.client.send(poll, &[ECHO])?;
            self.send(poll, pattern)?;
        }
        Ok(())
    }
}
