//! The phases of a measurement, and the CPU time of other processes.

use std::fs;
use std::ops::AddAssign;
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

/// A measurement whose length is not known before.
pub(crate) struct Window {
    pids: Vec<Pid>,
    first: Reading,
}

impl Window {
    /// Starts it.
    pub(crate) fn open(task: &Task) -> Result<Self> {
        let pids = processes(task);
        let first = Reading::take(&pids)?;
        Ok(Self { pids, first })
    }

    /// Ends it.
    pub(crate) fn close(self) -> Result<Measured> {
        Ok(Reading::take(&self.pids)?.since(&self.first))
    }
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
#[derive(Debug, Default)]
pub(crate) struct Measured {
    wall: Duration,
    proxy: Duration,
    load: Duration,
    switches: u64,
}

struct Reading {
    at: Instant,
    proxy: Duration,
    load: Duration,
    switches: u64,
}

impl Meter {
    /// Starts the warm-up.
    pub(crate) fn start(task: &Task) -> Self {
        Self {
            pids: processes(task),
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
                Ok(Tick::Over(Reading::take(&self.pids)?.since(first)))
            }
            _ => Ok(Tick::None),
        }
    }

    /// Whether the measurement is in progress.
    pub(crate) fn measuring(&self) -> bool {
        self.first.is_some()
    }
}

impl AddAssign for Measured {
    fn add_assign(&mut self, more: Self) {
        self.wall += more.wall;
        self.proxy += more.proxy;
        self.load += more.load;
        self.switches += more.switches;
    }
}

impl Measured {
    /// Its length.
    pub(crate) fn wall(&self) -> Duration {
        self.wall
    }

    /// The answer, with `more` about the work in that time.
    pub(crate) fn answer(&self, more: Value) -> Value {
        let mut answer = json!({
            "wall_ns": nanoseconds(self.wall),
            "proxy_cpu_ns": nanoseconds(self.proxy),
            "load_cpu_ns": nanoseconds(self.load),
            "proxy_switches": self.switches,
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
            switches: pids.iter().copied().map(context_switches).sum(),
        })
    }

    fn since(&self, first: &Self) -> Measured {
        Measured {
            wall: self.at - first.at,
            proxy: self.proxy - first.proxy,
            load: self.load - first.load,
            // A thread that has ended takes its count with it.
            switches: self.switches.saturating_sub(first.switches),
        }
    }
}

fn processes(task: &Task) -> Vec<Pid> {
    task.pids.iter().copied().map(Pid::from_raw).collect()
}

/// The number of times that the threads of a process have waited, or had to let others run.
fn context_switches(pid: Pid) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let statuses = threads
        .flatten()
        // One that has ended meanwhile has none.
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    statuses.map(|status| switches_in(&status)).sum()
}

fn switches_in(status: &str) -> u64 {
    let counts = status.lines().filter_map(|line| {
        let (name, count) = line.split_once(':')?;
        name.ends_with("voluntary_ctxt_switches")
            .then(|| count.trim().parse::<u64>().ok())?
    });
    counts.sum()
}

/// The CPU time of a process; 0 means this one.
fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(pid)?;
    Ok(clock_gettime(clock)?.into())
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_context_switches_count() {
        let status = "Name:\tload\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(switches_in(status), 157);
        assert!(context_switches(Pid::this()) > 0);
    }
}
