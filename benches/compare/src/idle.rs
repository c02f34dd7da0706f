//! Connections that have carried traffic and are then idle.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::echo::Talk;
use crate::pattern::Pattern;
use crate::session;
use crate::stage::Stage;
use crate::task::Task;

/// Handshakes at a time: few enough for every listen queue.
const ABREAST: usize = 16;
/// The time limit for a proxy to close all of them.
const CLOSING: Duration = Duration::from_secs(20);

/// Opens all connections, reports that, waits for a line on stdin, and closes all.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let mut clients = open_all(task, &mut stage)?;
    println!("{}", json!({ "opened": clients.len() }));
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    let closed_in = close_all(&mut clients, &mut stage)?;
    Ok(json!({ "closed": clients.len(), "closed_in_ns": closed_in.as_nanos() as u64 }))
}

/// A message is echoed on each connection before the next ones are opened.
fn open_all(task: &Task, stage: &mut Stage) -> Result<Vec<Client>> {
    let pattern = Pattern::new();
    let config = session::offer_as(task, task.own.as_ref())?;
    let mut clients = Vec::new();
    let mut ready = Vec::new();
    while clients.len() < task.connections {
        let first = clients.len();
        let mut talks = Vec::new();
        for token in first..task.connections.min(first + ABREAST) {
            talks.push(Talk::open(
                task,
                config.as_ref(),
                stage,
                &pattern,
                token as u64,
            )?);
        }
        while talks.iter().any(|talk| talk.rounds == 0) {
            stage.turn(&mut ready)?;
            for event in &ready {
                let talk = (event.token as usize)
                    .checked_sub(first)
                    .and_then(|n| talks.get_mut(n));
                let Some(talk) = talk else {
                    anyhow::bail!("an idle connection has said something");
                };
                talk.go_on(&stage.poll, &pattern, *event)?;
            }
        }
        clients.extend(talks.into_iter().map(Talk::into_client));
    }
    Ok(clients)
}

fn close_all(clients: &mut [Client], stage: &mut Stage) -> Result<Duration> {
    let began = Instant::now();
    let mut ready = Vec::new();
    let mut open = clients.len();
    for first in (0..clients.len()).step_by(ABREAST) {
        let last = clients.len().min(first + ABREAST);
        for client in &mut clients[first..last] {
            client.close(&stage.poll)?;
        }
        while clients[first..last]
            .iter()
            .any(|client| !client.is_closed())
        {
            stage.turn(&mut ready)?;
            for event in &ready {
                let client = &mut clients[event.token as usize];
                client.receive(&stage.poll, |_| Ok(()))?;
                if client.is_closed() {
                    client.forget(&stage.poll)?;
                    open -= 1;
                }
            }
            ensure!(
                began.elapsed() < CLOSING,
                "{open} connections are still not closed"
            );
        }
    }
    Ok(began.elapsed())
}
