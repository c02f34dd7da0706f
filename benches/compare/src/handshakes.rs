//! New connections: connect, handshake, one byte in each direction, close in order.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;

use crate::backend::ECHO;
use crate::client::Client;
use crate::echo::quantiles;
use crate::meter::{Meter, Tick};
use crate::poll::Poll;
use crate::session;
use crate::stage::Stage;
use crate::task::{Host, Task};

/// Larger than a server's flight and tickets.
const READ: usize = 16 * 1024;
const BYTE: u8 = 0x5A;

/// Runs `connections` lanes, each with one connection at a time.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let mut lanes = Vec::new();
    for token in 0..task.connections {
        lanes.push(Lane::open(task, &stage.poll, token as u64)?);
    }
    let mut meter = Meter::start(task);
    let mut counts = Counts::default();
    let mut ready = Vec::new();
    loop {
        stage.turn(&mut ready)?;
        for &event in &ready {
            let lane = &mut lanes[event.token as usize];
            lane.go_on(task, &stage.poll, &mut counts)?;
        }
        match meter.tick(lanes.iter().all(|lane| lane.served > 1))? {
            Tick::None => {}
            Tick::Begin => {
                counts = Counts::default();
                lanes.iter_mut().for_each(|lane| lane.served = 0);
            }
            Tick::Over(measured) => {
                let idle = lanes.iter().filter(|lane| lane.served == 0).count();
                ensure!(idle == 0, "{idle} of the lanes had no connection served");
                let mut answer = quantiles(&mut counts.first_bytes);
                answer["connections"] = (counts.full + counts.resumed + counts.plain).into();
                answer["hybrid"] = counts.hybrid.into();
                answer["full"] = counts.full.into();
                answer["resumed"] = counts.resumed.into();
                return Ok(measured.answer(answer));
            }
        }
    }
}

#[derive(Default)]
struct Counts {
    full: u64,
    resumed: u64,
    plain: u64,
    hybrid: u64,
    /// From the connect to the first byte of the answer, in nanoseconds.
    first_bytes: Vec<u32>,
}

/// Consecutive connections that share their sessions.
struct Lane {
    token: u64,
    config: Option<Arc<ClientConfig>>,
    began: Instant,
    client: Client,
    asked: bool,
    answered: bool,
    served: u64,
}

impl Lane {
    fn open(task: &Task, poll: &Poll, token: u64) -> Result<Self> {
        let config = session::offer_to(task, host(task, token))?;
        let began = Instant::now();
        let client = connect(task, poll, token, config.as_ref())?;
        let mut lane = Self {
            token,
            config,
            began,
            client,
            asked: false,
            answered: false,
            served: 0,
        };
        lane.ask(poll)?;
        Ok(lane)
    }

    fn go_on(&mut self, task: &Task, poll: &Poll, counts: &mut Counts) -> Result<()> {
        let mut answer = None;
        self.client.receive(poll, |bytes| {
            ensure!(
                bytes == [BYTE] && answer.is_none(),
                "the echo is wrong: {bytes:?}"
            );
            answer = Some(());
            Ok(())
        })?;
        self.ask(poll)?;
        if answer.is_some() {
            ensure!(!self.answered, "two answers to one question");
            self.answered = true;
            let latency = self.began.elapsed().as_nanos();
            counts
                .first_bytes
                .push(u32::try_from(latency).unwrap_or(u32::MAX));
            self.client.close(poll)?;
        }
        if self.client.is_closed() {
            ensure!(self.answered, "closed without an answer");
            self.count(task, counts)?;
            *self = self.next(task, poll)?;
        }
        Ok(())
    }

    /// Sends the byte after the handshake.
    fn ask(&mut self, poll: &Poll) -> Result<()> {
        if !self.asked && self.client.is_established() {
            self.client.send(poll, &[ECHO, BYTE])?;
            self.asked = true;
        }
        Ok(())
    }

    fn count(&mut self, task: &Task, counts: &mut Counts) -> Result<()> {
        self.served += 1;
        counts.hybrid += u64::from(self.client.is_hybrid());
        match self.client.handshake(task.tls)? {
            None => counts.plain += 1,
            Some(HandshakeKind::Full) => counts.full += 1,
            Some(HandshakeKind::Resumed) => counts.resumed += 1,
            Some(other) => bail!("a handshake of another kind: {other:?}"),
        }
        Ok(())
    }

    fn next(&mut self, task: &Task, poll: &Poll) -> Result<Self> {
        let config = self.config.take();
        let began = Instant::now();
        let client =
            connect(task, poll, self.token, config.as_ref()).context("the next connection")?;
        let served = self.served;
        let mut lane = Self {
            token: self.token,
            config,
            began,
            client,
            asked: false,
            answered: false,
            served,
        };
        lane.ask(poll)?;
        Ok(lane)
    }
}

fn connect(
    task: &Task,
    poll: &Poll,
    token: u64,
    config: Option<&Arc<ClientConfig>>,
) -> Result<Client> {
    let name = host(task, token).map_or("localhost", |host| &host.name);
    Client::connect_to(name, poll, token, task.target, config, READ)
}

/// The host that a lane asks for, if there are several.
fn host(task: &Task, token: u64) -> Option<&Host> {
    task.hosts.iter().cycle().nth(token as usize)
}
