//! New streams: open, one byte in each direction, close in order.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::backend::ECHO;
use crate::meter::{Meter, Tick};
use crate::mux::Event;
use crate::stage::Stage;
use crate::task::Task;

const BYTE: u8 = 0x5A;

/// How far a stream is.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Opening,
    Asked,
    Closing,
}

/// What is to be done after the tunnel was read.
enum Next {
    Ask,
    Close,
    Open,
}

/// Keeps `connections` streams open in each tunnel, one after the other.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let mut muxes = super::tunnels(task, &mut stage)?;
    let mut steps: Vec<HashMap<u32, Step>> = Vec::new();
    for mux in &mut muxes {
        let ids = (0..task.connections).map(|_| (mux.open(), Step::Opening));
        steps.push(ids.collect());
        mux.flush(&stage.poll)?;
    }
    let mut meter = Meter::start(task);
    let (mut served, mut ready, mut todo) = (0u64, Vec::new(), Vec::new());
    loop {
        stage.turn(&mut ready)?;
        for event in &ready {
            let place = event.token as usize;
            let (mux, steps) = (&mut muxes[place], &mut steps[place]);
            mux.go_on(&stage.poll, *event, |id, event| {
                let step = steps.get_mut(&id).context("an event of no stream")?;
                let (next, then) = match (*step, event) {
                    (Step::Opening, Event::Answered) => (Next::Ask, Step::Asked),
                    (Step::Asked, Event::Bytes(&[BYTE])) => (Next::Close, Step::Closing),
                    (Step::Closing, Event::Ended) => (Next::Open, Step::Closing),
                    (_, event) => anyhow::bail!("stream {id} is not that far: {event:?}"),
                };
                *step = then;
                todo.push((id, next));
                Ok(())
            })?;
            for (id, next) in todo.drain(..) {
                match next {
                    Next::Ask => mux.send_all(id, &[ECHO, BYTE])?,
                    Next::Close => mux.close(id)?,
                    Next::Open => {
                        steps.remove(&id);
                        steps.insert(mux.open(), Step::Opening);
                        served += 1;
                    }
                }
            }
            mux.flush(&stage.poll)?;
        }
        match meter.tick(served > 0)? {
            Tick::None => {}
            Tick::Begin => served = 0,
            Tick::Over(measured) => {
                ensure!(served > 0, "no stream was served");
                let more = json!({ "connections": served, "full": 0, "resumed": 0 });
                return Ok(measured.answer(more));
            }
        }
    }
}
