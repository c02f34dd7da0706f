//! Streams that have carried traffic and are then idle.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::echo::Talk;
use crate::mux::{Event, Mux};
use crate::pattern::Pattern;
use crate::stage::Stage;
use crate::task::Task;

/// Opens all streams, each with an echo, reports that, waits for a line on stdin, and ends all.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let pattern = Pattern::new();
    let mut muxes = super::tunnels(task, &mut stage)?;
    let each = task.connections / task.tunnels;
    for place in 0..muxes.len() {
        open(task, &mut stage, &pattern, &mut muxes, place, each)?;
    }
    println!("{}", json!({ "opened": each * muxes.len() }));
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    let began = Instant::now();
    for place in 0..muxes.len() {
        close(&mut stage, &mut muxes, place, each)?;
    }
    let closed_in = began.elapsed().as_nanos() as u64;
    Ok(json!({ "closed": each * muxes.len(), "closed_in_ns": closed_in }))
}

fn open(
    task: &Task,
    stage: &mut Stage,
    pattern: &Pattern,
    muxes: &mut [Mux],
    place: usize,
    count: usize,
) -> Result<()> {
    let mux = &mut muxes[place];
    let mut talks: Vec<Talk> = (0..count).map(|_| Talk::open(mux, task.size)).collect();
    mux.flush(&stage.poll)?;
    let mut ready = Vec::new();
    while talks.iter().any(|talk| talk.rounds == 0) {
        stage.turn(&mut ready)?;
        for event in &ready {
            // The others may answer PING, and nothing else.
            let its = event.token as usize == place;
            let mux = &mut muxes[event.token as usize];
            mux.go_on(&stage.poll, *event, |id, event| {
                ensure!(its, "an idle stream has said something");
                talks[super::place(id)].hear(&event, pattern)
            })?;
            for talk in talks.iter_mut().filter(|talk| talk.has_news()) {
                talk.go_on(mux, pattern, false)?;
            }
            mux.flush(&stage.poll)?;
        }
    }
    Ok(())
}

fn close(stage: &mut Stage, muxes: &mut [Mux], place: usize, count: usize) -> Result<()> {
    let (mut ended, mut ready) = (0, Vec::new());
    for n in 0..count {
        muxes[place].close(n as u32 * 2 + 1)?;
    }
    muxes[place].flush(&stage.poll)?;
    while ended < count {
        stage.turn(&mut ready)?;
        for event in &ready {
            let mux = &mut muxes[event.token as usize];
            mux.go_on(&stage.poll, *event, |_, event| {
                ensure!(matches!(event, Event::Ended), "not an end: {event:?}");
                ended += 1;
                Ok(())
            })?;
            mux.flush(&stage.poll)?;
        }
    }
    Ok(())
}
