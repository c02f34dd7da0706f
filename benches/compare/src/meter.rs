//! When to measure, and the CPU time of others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::task::Task;

/// The warm-up, then the measurement.
///
/// The time of a process is read from its POSIX CPU clock (`clock_getcpuclockid`): nanoseconds, the
/// sum over its threads, with those that are running now and those that have ended. That is exact
/// for a worker process as for a server with a thread for each connection.
pub(crate) struct Meter {
    pids: Vec<Pid>,
    begins: Instant,
    length: Duration,
    first: Option<Reading>,
}

/// What has just happened.
pub(crate) enum Tick {
    /// Nothing.
    None,
    /// The measurement begins: whatever was counted so far does not count.
    Begin,
    /// It is over.
    Over(Measured),
}

/// The time that a measurement took.
pub(crate) struct Measured {
    wall: Duration,
    proxy: Duration,
    load: Duration,
}

struct Reading {
    at: Instant,
    proxy: Duration,
    load: Duration,
}

impl Meter {
    /// Starts the warm-up.
    pub(crate) fn start(task: &Task) -> Self {
        Self {
            pids: task.pids.iter().copied().map(Pid::from_raw).collect(),
            begins: Instant::now() + task.warm_up(),
            length: task.measure(),
            first: None,
        }
    }

    /// To be called after each turn of the stage. The warm-up lasts until the time is up and
    /// `all_ready` is true.
    pub(crate) fn tick(&mut self, all_ready: bool) -> Result<Tick> {
        let now = Instant::now();
        match &self.first {
            None if all_ready && now >= self.begins => {
                self.first = Some(Reading::take(&self.pids)?);
                Ok(Tick::Begin)
            }
            Some(first) if now >= first.at + self.length => {
                let last = Reading::take(&self.pids)?;
                Ok(Tick::Over(Measured {
                    wall: last.at - first.at,
                    proxy: last.proxy - first.proxy,
                    load: last.load - first.load,
                }))
            }
            _ => Ok(Tick::None),
        }
    }

    /// Whether it counts what happens now.
    pub(crate) fn measuring(&self) -> bool {
        self.first.is_some()
    }
}

impl Measured {
    /// The answer, with `more` about what was done in that time.
    pub(crate) fn answer(&self, more: Value) -> Value {
        let mut answer = json!({
            "wall_ns": nanoseconds(self.wall),
            "proxy_cpu_ns": nanoseconds(self.proxy),
            "load_cpu_ns": nanoseconds(self.load),
        });
        if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
            answer.extend(more);
        }
        answer
    }
}

impl Reading {
    fn take(pids: &[Pid]) -> Result<Self> {
        let mut proxy = Duration::ZERO;
        for &pid in pids {
            proxy += cpu_time(pid).with_context(|| format!("the CPU clock of process {pid}"))?;
        }
        Ok(Self {
            at: Instant::now(),
            proxy,
            load: cpu_time(Pid::from_raw(0))?,
        })
    }
}

/// The CPU time of a process; 0 is this one.
fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(pid)?;
    Ok(clock_gettime(clock)?.into())
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
