//! Decides at each sample of the memory what to do.
//!
//! The memory of a closed connection comes back late, and perhaps not at all: an allocator keeps it, or
//! it was never the connections' memory. So connections are closed in batches, each in proportion to what
//! is too much, and the next one waits for the effect of the last. If batches free nothing, it stops.

use std::time::Duration;

use tokio::time::Instant;

use super::{PENDING_AT_MOST, Pressure};

/// The rules for one budget.
#[derive(Debug)]
pub(crate) struct Controller {
    max: u64,
    base: u64,
    pressure: Pressure,
    batch: Option<Batch>,
    /// Batches in a row that have freed nothing.
    useless: u32,
    /// No connection is closed before this.
    resting: Option<Instant>,
    /// When each level was logged.
    said: [Option<Instant>; Pressure::ALL.len()],
}

/// Connections that were told to end, and whose memory is not back yet.
#[derive(Debug)]
struct Batch {
    at: Instant,
    size: usize,
    /// What was used when they were told.
    used: u64,
}

/// What to do now.
#[derive(Debug)]
pub(crate) struct Decision {
    pub pressure: Pressure,
    /// How many connections without a backend there may be. `None`: as many as the limits allow.
    pub most_pending: Option<u64>,
    /// How many connections to close, those that have been idle longest.
    pub shed: usize,
    /// When to sample again.
    pub next: Duration,
    pub remark: Option<Remark>,
}

/// What an operator must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remark {
    Rose(Pressure),
    /// After a warning, the pressure is gone.
    Fell,
    /// Closing connections frees no memory.
    Useless,
}

impl Controller {
    /// `max` is the maximum and `base` what is used without connections, in bytes.
    pub(crate) fn new(max: u64, base: u64) -> Self {
        Self {
            max,
            base,
            pressure: Pressure::None,
            batch: None,
            useless: 0,
            resting: None,
            said: [None; Pressure::ALL.len()],
        }
    }

    /// `used` bytes were measured, and `open` connections are open.
    pub(crate) fn step(&mut self, now: Instant, used: u64, open: usize) -> Decision {
        let before = self.pressure;
        self.pressure = self.pressure_at(used);
        let mut remark = self.remark(now, before);
        let shed = match self.pressure {
            Pressure::Shedding => self.shed(now, used, open),
            _ => {
                (self.batch, self.useless, self.resting) = (None, 0, None);
                Some(0)
            }
        };
        if shed.is_none() {
            remark = Some(Remark::Useless);
        }
        // Strangers who send half a ClientHello must not have others closed.
        let hellos = self.percent(95).saturating_sub(used) / PENDING_AT_MOST;
        Decision {
            pressure: self.pressure,
            most_pending: match self.pressure {
                Pressure::Refusing | Pressure::Shedding => Some(0),
                _ => Some(hellos).filter(|most| *most < MOST_PENDING),
            },
            shed: shed.unwrap_or(0),
            next: until_next(self.max.saturating_sub(used)),
            remark,
        }
    }

    fn pressure_at(&self, used: u64) -> Pressure {
        let is_over = |percent| used >= self.percent(percent);
        match self.pressure {
            _ if is_over(95) => Pressure::Shedding,
            Pressure::Shedding if is_over(90) => Pressure::Shedding,
            _ if is_over(90) => Pressure::Refusing,
            _ if is_over(80) => Pressure::High,
            Pressure::None => Pressure::None,
            _ if is_over(75) => Pressure::High,
            _ => Pressure::None,
        }
    }

    fn percent(&self, percent: u64) -> u64 {
        self.max / 100 * percent
    }

    /// Each level is worth one line a minute.
    fn remark(&mut self, now: Instant, before: Pressure) -> Option<Remark> {
        let is_due = |said: Option<Instant>| said.is_none_or(|said| now - said >= MINUTE);
        let said = &mut self.said[self.pressure as usize];
        if self.pressure > before && is_due(*said) {
            *said = Some(now);
            return Some(Remark::Rose(self.pressure));
        }
        let has_fallen = self.pressure == Pressure::None && before != Pressure::None;
        if has_fallen && is_due(*said) {
            *said = Some(now);
            return Some(Remark::Fell);
        }
        None
    }

    /// How many connections to close now. `None`: that is given up for some time.
    fn shed(&mut self, now: Instant, used: u64, open: usize) -> Option<usize> {
        if self.resting.is_some_and(|until| now < until) {
            return Some(0);
        }
        let mut excess = used.saturating_sub(self.percent(90));
        if let Some(batch) = &self.batch {
            // Otherwise a batch would be the reason for the next one.
            let closing = batch.size as u64 * CLOSING;
            let grown = used.saturating_sub(batch.used).saturating_sub(closing);
            if grown >= self.percent(GROWN) {
                excess = grown;
            } else if now - batch.at < EFFECT {
                return Some(0);
            } else {
                let freed = batch.used.saturating_sub(used);
                let is_useless = freed < batch.size as u64 * LEAST;
                self.useless = if is_useless { self.useless + 1 } else { 0 };
            }
        }
        if self.useless >= MOST_USELESS {
            // After the rest, one batch shows whether it is of use now.
            self.useless = MOST_USELESS - 1;
            self.resting = Some(now + REST);
            self.batch = None;
            return None;
        }
        let each = (used.saturating_sub(self.base) / (open.max(1) as u64)).max(LEAST);
        let size = usize::try_from(excess.div_ceil(each)).unwrap_or(open);
        let size = size.clamp(1, open.max(1));
        self.batch = Some(Batch {
            at: now,
            size,
            used,
        });
        Some(size)
    }
}

/// The shorter, the less memory is left: it must not be possible to use all of it between two samples.
fn until_next(room: u64) -> Duration {
    let time = Duration::from_micros(room / PER_MICROSECOND);
    time.clamp(MOST_OFTEN, LEAST_OFTEN)
}

/// About as fast as worker threads can fill memory with what they read: 1 GiB/s.
const PER_MICROSECOND: u64 = 1024;
const MOST_OFTEN: Duration = Duration::from_millis(5);
const LEAST_OFTEN: Duration = Duration::from_secs(1);

/// How long closed connections may take to give their memory back: they close (a client that does not
/// answer has a second), and the allocator keeps free pages for a second.
const EFFECT: Duration = Duration::from_millis(2_500);

/// If this much of the maximum, in percent, comes on top meanwhile, the next batch does not wait.
const GROWN: u64 = 2;

/// What a connection takes in addition while it is told its end: a few KiB, several times as much in a
/// debug build.
const CLOSING: u64 = 10 * 1024;

/// A closed connection that gives back less than this on average was not worth it. An idle one has four
/// times as much.
const LEAST: u64 = 1024;

/// After this many batches without an effect, no more are closed for [`REST`].
const MOST_USELESS: u32 = 3;
const REST: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);

/// More connections than a process has descriptors. A bound above that is none.
const MOST_PENDING: u64 = 1 << 20;

#[cfg(test)]
mod tests;
