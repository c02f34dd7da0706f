//! The windows of a tunnel: how much its peer may have on the way to us, on each stream and in all.
//!
//! ```text
//! bytes in the time of a PING, a stream's window full ─► twice these bytes for each stream
//! a stream that nobody reads, a pause, little memory  ─► what a stream has at rest
//! ```
//!
//! The time is the shortest that a PING has taken lately. Bytes that wait at either end because it is busy make a PING
//! slower too, and a larger window would only let more of them wait: in memory that no cache holds.
//!
//! HTTP/2 has one initial window for all streams of a connection. A change of it changes the windows of all open
//! streams by the difference; they become negative if more is on the way already (RFC 9113 §6.9.2).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use h2::{client, server};
use hyper::body::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::budget::{Grant, WindowBudget};
use super::flows::Flows;
use super::heartbeat::Pings;
use super::{MOST_WINDOW, STREAM_WINDOW, carrier_window};

/// Sets the windows of one tunnel.
pub(super) struct Windows {
    flows: Arc<Flows>,
    /// What all streams together may have on their way at rest.
    rest: u32,
    /// Without one, the windows stay as they are.
    grant: Option<Grant>,
    /// Of each stream, as the peer was told last.
    window: u32,
    sample: Option<Sample>,
    nearest: Nearest,
    /// The most bytes in a second that a sample has seen since the windows began to grow.
    fastest: u64,
    /// Not before this, another sample.
    next: Option<Instant>,
    pause: Duration,
    /// The bytes that had arrived at the last look.
    seen: u64,
    /// While the windows have grown.
    watch: Option<Watch>,
    /// The peer was told to return to the window at rest, and has perhaps not confirmed it.
    is_returning: bool,
}

/// The bytes that arrive between a PING and its answer.
struct Sample {
    began: Instant,
    before: u64,
}

/// The shortest time of a PING: that of the path, without what waits at its ends. It forgets after some minutes, for a
/// path that has become longer.
#[derive(Default)]
struct Nearest {
    /// Of the present period, which began then.
    present: Option<(Instant, Duration)>,
    /// Of the period before.
    past: Option<Duration>,
}

impl Nearest {
    /// Takes a time into account, and returns the shortest.
    fn of(&mut self, now: Instant, took: Duration) -> Duration {
        let (began, least) = match self.present {
            Some((began, least)) if now.duration_since(began) < PERIOD => (began, least.min(took)),
            before => {
                self.past = before.map(|(_, least)| least);
                (now, took)
            }
        };
        self.present = Some((began, least));
        self.past.map_or(least, |past| past.min(least))
    }
}

/// Looks again and again whether the windows may stay as they are.
struct Watch {
    timer: Pin<Box<Sleep>>,
    /// When much had arrived last, and how much that was.
    busy: Instant,
    received: u64,
    /// To the next look.
    pause: Duration,
}

/// Both sides of HTTP/2.
pub(super) trait Resize {
    /// `false`: the peer has not confirmed the change before.
    fn set_stream_window(&mut self, bytes: u32) -> bool;

    fn set_carrier_window(&mut self, bytes: u32);
}

impl Windows {
    pub(super) fn new(streams: u32, flows: &Arc<Flows>) -> Self {
        Self {
            flows: Arc::clone(flows),
            rest: carrier_window(streams),
            grant: None,
            window: STREAM_WINDOW,
            sample: None,
            nearest: Nearest::default(),
            fastest: 0,
            next: None,
            pause: SHORTEST,
            seen: 0,
            watch: None,
            is_returning: false,
        }
    }

    /// From now on they grow.
    pub(super) fn grow_within(&mut self, budget: &Arc<WindowBudget>) {
        self.grant = Some(Grant::new(Arc::clone(budget)));
    }

    /// `received` is how many bytes have arrived. `is_answered`: so has the answer to the last PING.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        received: u64,
        is_answered: bool,
        pings: &mut Pings,
        tunnel: &mut impl Resize,
    ) {
        if self.grant.is_none() {
            return;
        }
        if is_answered && let Some(sample) = self.sample.take() {
            self.judge(&sample, received, tunnel);
        }
        if self.watch.is_some() {
            self.look(cx, received, tunnel);
        }
        // The first one before much is on its way, for the time of the path.
        let is_first = self.nearest.present.is_none();
        if self.sample.is_none() && (is_first || received - self.seen >= WORTH_A_SAMPLE) {
            self.seen = received;
            self.begin(cx, received, pings);
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, received: u64, pings: &mut Pings) {
        let now = Instant::now();
        if self.flows.open() == 0
            || pings.is_asked()
            || self.next.is_some_and(|next| now < next)
            || !pings.ask(cx)
        {
            return;
        }
        self.sample = Some(Sample {
            began: now,
            before: received,
        });
    }

    /// Grows if the window was what has limited the peer, and the last growth has made it faster.
    fn judge(&mut self, sample: &Sample, received: u64, tunnel: &mut impl Resize) {
        let now = Instant::now();
        let took = now.duration_since(sample.began);
        let bytes = received - sample.before;
        let speed = bytes as u128 * 1_000_000 / took.as_micros().max(1);
        let speed = u64::try_from(speed).unwrap_or(u64::MAX);
        let nearest = self.nearest.of(now, took);
        if bytes < WORTH_A_SAMPLE {
            return;
        }
        let on_the_path = u128::from(speed) * nearest.as_micros() / 1_000_000;
        let on_the_path = u64::try_from(on_the_path).unwrap_or(u64::MAX);
        let is_full = on_the_path >= u64::from(self.window) / 3 * 2;
        let is_faster = speed > self.fastest.saturating_add(self.fastest / 10);
        let wanted = u32::try_from(on_the_path.saturating_mul(2)).unwrap_or(MOST_WINDOW);
        let wanted = wanted.min(most(self.flows.open()));
        let grows = is_full
            && !self.is_returning
            && is_faster
            && wanted > self.window
            && !self.is_tight()
            && !self.flows.has_stalled(now, Duration::ZERO)
            && self.resize(wanted, tunnel);
        if grows {
            (self.fastest, self.pause) = (speed, SHORTEST);
        } else {
            self.pause = (self.pause * 2).min(LONGEST);
        }
        // What was on its way before a growth would be half of the next sample.
        self.next = Some(now + self.pause.max(took));
        // Also if the peer could not be told: its part of the budget was taken.
        let is_granted = self.grant.as_ref().is_some_and(|it| it.bytes() > 0);
        if is_granted && self.watch.is_none() {
            self.watch = Some(Watch {
                timer: Box::pin(sleep(EVERY)),
                busy: now,
                received,
                pause: EVERY,
            });
        }
    }

    /// Tells the peer a larger window. `false`: it stays as it is.
    fn resize(&mut self, window: u32, tunnel: &mut impl Resize) -> bool {
        if !self.cover(window, tunnel) || !tunnel.set_stream_window(window) {
            return false;
        }
        self.window = window;
        true
    }

    /// Lets the streams together have on their way what each of them may have: one that nobody reads must not delay the
    /// others.
    fn cover(&mut self, window: u32, tunnel: &mut impl Resize) -> bool {
        let Some(grant) = &mut self.grant else {
            return false;
        };
        let more = (window - STREAM_WINDOW) as usize;
        let bytes = more.saturating_mul(self.flows.open());
        if bytes > MOST_OF_A_TUNNEL as usize {
            return false;
        }
        let before = grant.bytes();
        if !grant.raise(bytes) {
            return false;
        }
        if grant.bytes() > before {
            let all = self.rest.saturating_add(grant.bytes() as u32);
            tunnel.set_carrier_window(all.min(MOST_WINDOW));
        }
        true
    }

    fn is_tight(&self) -> bool {
        (self.grant.as_ref()).is_some_and(|grant| grant.budget().is_tight())
    }

    /// Whether the windows may stay as large as they are.
    fn look(&mut self, cx: &mut Context<'_>, received: u64, tunnel: &mut impl Resize) {
        // Streams that were opened since then have large windows as well.
        if self.window > STREAM_WINDOW && !self.cover(self.window, tunnel) {
            self.shrink(tunnel);
        }
        let Some(watch) = &mut self.watch else {
            return;
        };
        if watch.timer.as_mut().poll(cx).is_pending() {
            return;
        }
        let now = Instant::now();
        if received - watch.received >= u64::from(STREAM_WINDOW) {
            (watch.busy, watch.received) = (now, received);
        }
        let rests = now.duration_since(watch.busy) >= REST;
        let has_stalled = self.flows.has_stalled(now, STALL);
        if self.window > STREAM_WINDOW {
            if rests || has_stalled || self.is_tight() {
                self.shrink(tunnel);
            }
        } else if self.has_returned(tunnel) && !has_stalled {
            // What was on its way has arrived, and is being read.
            if let Some(grant) = &mut self.grant {
                grant.give_back();
            }
            tunnel.set_carrier_window(self.rest);
            self.watch = None;
            return;
        }
        if let Some(watch) = &mut self.watch {
            watch.pause = (watch.pause * 2).min(EVERY);
            watch.timer.as_mut().reset(now + watch.pause);
            // Its wake-up has to be asked for.
            let _pending = watch.timer.as_mut().poll(cx);
        }
    }

    /// What is on its way already may still come. If the peer has not confirmed the change before, the next look tries
    /// again.
    fn shrink(&mut self, tunnel: &mut impl Resize) {
        if tunnel.set_stream_window(STREAM_WINDOW) {
            self.window = STREAM_WINDOW;
            self.fastest = 0;
            self.pause = LONGEST;
            self.next = Some(Instant::now() + LONGEST);
            self.is_returning = true;
            if let Some(watch) = &mut self.watch {
                watch.pause = SHORTEST;
                watch.timer.as_mut().reset(Instant::now() + SHORTEST);
            }
        }
    }

    /// Whether the peer has confirmed the window at rest. Only then a change that is none can be sent.
    fn has_returned(&mut self, tunnel: &mut impl Resize) -> bool {
        if self.is_returning && tunnel.set_stream_window(STREAM_WINDOW) {
            self.is_returning = false;
            self.flows.nudge();
        }
        !self.is_returning
    }
}

/// The largest window for each of so many streams.
fn most(open: usize) -> u32 {
    let share = MOST_OF_A_TUNNEL / u32::try_from(open.max(1)).unwrap_or(u32::MAX);
    share.clamp(STREAM_WINDOW, MOST_OF_A_STREAM)
}

impl<IO, B> Resize for server::Connection<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Buf + 'static,
{
    fn set_stream_window(&mut self, bytes: u32) -> bool {
        self.set_initial_window_size(bytes).is_ok()
    }

    fn set_carrier_window(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }
}

impl<IO, B> Resize for client::Connection<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Buf + 'static,
{
    fn set_stream_window(&mut self, bytes: u32) -> bool {
        self.set_initial_window_size(bytes).is_ok()
    }

    fn set_carrier_window(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }
}

const MOST_OF_A_STREAM: u32 = 4 * 1024 * 1024;
/// All streams of a tunnel together, beyond what they have at rest.
const MOST_OF_A_TUNNEL: u32 = 16 * 1024 * 1024;
/// A tunnel that receives less has no use for larger windows.
const WORTH_A_SAMPLE: u64 = 128 * 1024;
/// Between two samples, while each growth makes the peer faster, and otherwise at most.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(2);
/// The times of PINGs are remembered for one to two of these; the kernel remembers those of TCP for one.
const PERIOD: Duration = Duration::from_secs(300);
/// How often a tunnel whose windows have grown is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// A stream of which nothing is read for so long is not merely slow.
const STALL: Duration = Duration::from_millis(500);
/// A tunnel that receives less than a window in this time rests.
const REST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
