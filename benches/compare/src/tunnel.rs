//! The same works through tunnels: connections are streams in a few TLS connections.

mod bulk;
mod echo;
mod idle;
mod open;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::mux::Mux;
use crate::poll::Ready;
use crate::session;
use crate::stage::Stage;
use crate::task::{Task, Work};

/// Does the work of the task with `connections` streams in `tunnels` tunnels.
pub(crate) fn run(task: &Task) -> Result<Value> {
    match task.work {
        Work::Handshakes => open::run(task),
        Work::Echo => echo::run(task),
        Work::ToClient | Work::FromClient => bulk::run(task),
        Work::Idle => idle::run(task),
        _ => bail!("this is not measured through tunnels"),
    }
}

/// The tunnels, ready for streams. The token of each is its index.
fn tunnels(task: &Task, stage: &mut Stage) -> Result<Vec<Mux>> {
    let config = session::offer_as(task, task.own.as_ref())?;
    let mut tunnels: Vec<Mux> = Vec::new();
    let mut ready: Vec<Ready> = Vec::new();
    for token in 0..task.tunnels {
        let (target, token) = (task.target, token as u64);
        let mux = Mux::connect(&stage.poll, token, target, config.as_ref())?;
        tunnels.push(mux);
        while !tunnels.iter().all(Mux::is_ready) {
            stage.turn(&mut ready)?;
            for event in &ready {
                let mux = &mut tunnels[event.token as usize];
                mux.go_on(&stage.poll, *event, |_, _| bail!("no stream is open"))?;
                mux.flush(&stage.poll)?;
            }
        }
    }
    Ok(tunnels)
}

/// Streams are opened one after the other: the place of a stream among those of its tunnel.
fn place(id: u32) -> usize {
    (id as usize - 1) / 2
}
