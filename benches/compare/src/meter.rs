//! The phases of a measurement, and the CPU time of other processes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::task::Task;

/// The warm-up, and then the measurement.
///
/// The time of a process comes from its POSIX CPU clock (`clock_getcpuclockid`): in nanoseconds,
/// summed over all its threads, running and ended. This is exact both for a worker process and for
/// a server with a thread for each connection.
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
    /// The measurement starts: everything before does not count.
    Begin,
    /// The measurement is over.
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

    /// Call this after each turn of the stage. The warm-up lasts until its time is up and
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

    /// Whether the measurement is in progress.
    pub(crate) fn measuring(&self) -> bool {
        self.first.is_some()
    }
}

impl Measured {
    /// The answer, with `more` about the work in that time.
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

/// The CPU time of a process; 0 means this one.
fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(pid)?;
    Ok(clock_gettime(clock)?.into())
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
