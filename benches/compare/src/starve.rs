//! The effect of unknown clients on established connections: echoes at fixed times beside a flood.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::echo::{Talk, summary};
use crate::flood::{self, Tally};
use crate::meter::{Meter, Tick};
use crate::pattern::Pattern;
use crate::session;
use crate::stage::Stage;
use crate::task::Task;

/// Handshakes at a time before the flood.
const ABREAST: usize = 16;

/// Measures the latency of echoes, and how many of the flood's handshakes were answered.
pub(crate) fn run(task: &Task) -> Result<Value> {
    let mut stage = Stage::set(task)?;
    let mut echoes = Echoes::open(task, &mut stage)?;
    let tally = Arc::new(Tally::default());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let strangers = task.flood.as_ref().map(|flood| {
            let (tally, over) = (&tally, &over);
            scope.spawn(move || flood::run(task, flood, tally, over))
        });
        let is_over = || strangers.as_ref().is_some_and(|it| it.is_finished());
        let measured = all_windows(task, &mut stage, &mut echoes, &tally, is_over);
        over.store(true, Ordering::Relaxed);
        match strangers.map(|strangers| strangers.join()) {
            Some(Err(_)) => bail!("the flood panicked"),
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(()))) | None => measured,
        }
    })
}

/// Reports all measurements but the last, which it returns.
fn all_windows(
    task: &Task,
    stage: &mut Stage,
    echoes: &mut Echoes,
    tally: &Tally,
    is_over: impl Fn() -> bool,
) -> Result<Value> {
    for _ in 1..task.windows {
        let answer = measure(task, stage, echoes, tally, &is_over)?;
        println!("{answer}");
        io::stdout().flush()?;
    }
    measure(task, stage, echoes, tally, is_over)
}

fn measure(
    task: &Task,
    stage: &mut Stage,
    echoes: &mut Echoes,
    tally: &Tally,
    is_over: impl Fn() -> bool,
) -> Result<Value> {
    let mut meter = Meter::start(task);
    let mut before = (0, 0);
    loop {
        echoes.turn(stage, meter.measuring())?;
        ensure!(!is_over(), "the flood is over too early");
        let is_flooded = task.flood.is_none() || tally.now().0 > 0;
        match meter.tick(is_flooded)? {
            Tick::None => {}
            Tick::Begin => before = tally.now(),
            Tick::Over(measured) => {
                let now = tally.now();
                ensure!(!echoes.latencies.is_empty(), "no echo came back");
                let mut answer = measured.answer(summary(std::mem::take(&mut echoes.latencies)));
                answer["handshakes"] = json!(now.0 - before.0);
                answer["unanswered"] = json!(now.1 - before.1);
                return Ok(answer);
            }
        }
    }
}

/// The established connections.
struct Echoes {
    pattern: Pattern,
    talks: Vec<Talk>,
    /// For each connection, since when its messages wait to be sent. The first one is in progress.
    due: Vec<VecDeque<Instant>>,
    /// The connection that sends the next message, and when.
    next: (usize, Instant),
    /// The time from one message to the next one of another connection.
    pause: Duration,
    latencies: Vec<u32>,
    ready: Vec<crate::poll::Ready>,
}

impl Echoes {
    /// A message is echoed on each connection before the next ones are opened.
    fn open(task: &Task, stage: &mut Stage) -> Result<Self> {
        let config = session::offer(task)?;
        let mut echoes = Self {
            pattern: Pattern::new(),
            talks: Vec::new(),
            due: vec![VecDeque::new(); task.connections],
            next: (0, Instant::now()),
            pause: task.period() / task.connections as u32,
            latencies: Vec::with_capacity(1 << 16),
            ready: Vec::new(),
        };
        while echoes.talks.len() < task.connections {
            let first = echoes.talks.len();
            for token in first..task.connections.min(first + ABREAST) {
                let (config, pattern) = (config.as_ref(), &echoes.pattern);
                let talk = Talk::open(task, config, stage, pattern, token as u64)?;
                echoes.talks.push(talk);
            }
            while echoes.talks.iter().any(|talk| talk.rounds == 0) {
                stage.turn(&mut echoes.ready)?;
                for &event in &echoes.ready {
                    let talk = &mut echoes.talks[event.token as usize];
                    talk.go_on(&stage.poll, &echoes.pattern, event)?;
                }
            }
        }
        echoes.next.1 = Instant::now();
        Ok(echoes)
    }

    /// Sends the messages that are due, and waits for answers.
    fn turn(&mut self, stage: &mut Stage, measuring: bool) -> Result<()> {
        let now = Instant::now();
        while self.next.1 <= now {
            self.send_next(stage)?;
        }
        let wait = self.next.1.saturating_duration_since(Instant::now());
        stage.turn_at_most(wait, &mut self.ready)?;
        for &event in &self.ready {
            let (talk, due) = of_one(&mut self.talks, &mut self.due, event.token as usize);
            let Some(latency) = talk.go_on(&stage.poll, &self.pattern, event)? else {
                continue;
            };
            if measuring {
                self.latencies.push(latency);
            }
            due.pop_front();
            if let Some(&began) = due.front() {
                talk.send_as_of(began, &stage.poll, &self.pattern)?;
            }
        }
        Ok(())
    }

    fn send_next(&mut self, stage: &Stage) -> Result<()> {
        let (index, at) = self.next;
        let (talk, due) = of_one(&mut self.talks, &mut self.due, index);
        if due.is_empty() {
            // Counted from the actual time of sending: delays of this program are not the proxy's.
            due.push_back(at);
            talk.send(&stage.poll, &self.pattern)?;
        } else {
            due.push_back(at);
        }
        let count = self.talks.len();
        self.next = ((index + 1) % count, at + self.pause);
        Ok(())
    }
}

fn of_one<'a>(
    talks: &'a mut [Talk],
    due: &'a mut [VecDeque<Instant>],
    index: usize,
) -> (&'a mut Talk, &'a mut VecDeque<Instant>) {
    (&mut talks[index], &mut due[index])
}
