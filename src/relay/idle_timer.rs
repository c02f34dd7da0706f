//! The timers of a relay: nothing has moved for too long, or one side is stalled and must be
//! checked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{InactivityTimeouts, Side};
use crate::wire::Transmission;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    HalfClosed,
}

/// Why a relay must end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing has moved for [`InactivityTimeouts::idle`].
    Idle,
    /// One direction has ended, and nothing has moved for [`InactivityTimeouts::half_close`].
    HalfClosed,
    /// A peer has acknowledged nothing for [`InactivityTimeouts::unacknowledged`].
    Silent(Side),
}

/// Notices when nothing has moved for too long, and when a peer is silent.
///
/// One timer does both. It is not moved with every byte but when it fires: it then checks when
/// bytes last moved.
pub(super) struct IdleTimer<'a> {
    settings: &'a InactivityTimeouts,
    phase: Phase,
    /// When bytes last moved, or when the phase began: a close after a long silence must leave the
    /// other side its time.
    since: Instant,
    /// Present while a peer may leave bytes unacknowledged.
    watch: Option<Box<Watch>>,
    timer: Option<Timer>,
}

impl<'a> IdleTimer<'a> {
    pub(super) fn new(settings: &'a InactivityTimeouts) -> Self {
        Self {
            settings,
            phase: Phase::Open,
            since: Instant::now(),
            watch: None,
            timer: None,
        }
    }

    /// `moved` is the time now, if bytes have moved. `look` asks a side's socket what it has still to deliver.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        phase: Phase,
        moved: Option<Instant>,
        mut look: impl FnMut(Side) -> Option<Transmission>,
    ) -> Poll<Expired> {
        let this = &mut *self;
        if phase != this.phase {
            this.phase = phase;
            this.timer = None;
            this.since = Instant::now();
        }
        if let Some(now) = moved {
            this.since = now;
            if let (None, Some(limit)) = (&this.watch, this.settings.unacknowledged) {
                this.watch = Some(Box::new(Watch::new(this.since, limit)));
                this.timer = None;
            }
        }
        // Most turns end here. The time of the end, which moves with every byte, need not be known before the
        // timer fires.
        if let Some(timer) = &mut this.timer {
            ready!(timer.poll(cx));
        }
        let (limit, lull) = match phase {
            Phase::Open => (this.settings.idle, Expired::Idle),
            Phase::HalfClosed => (this.settings.half_close, Expired::HalfClosed),
        };
        let end = limit.and_then(|limit| this.since.checked_add(limit));
        loop {
            let watched = this.watch.as_ref().map(|watch| watch.next);
            let Some(due) = earlier(end, watched) else {
                return Poll::Pending;
            };
            let timer = this.timer.get_or_insert_with(|| Timer::new(due));
            ready!(timer.poll(cx));
            let now = Instant::now();
            if let Some(watch) = this.watch.as_mut().filter(|watch| watch.next <= now) {
                match watch.look(now, &mut look) {
                    Looked::Silent(side) => {
                        this.watch = None;
                        return Poll::Ready(Expired::Silent(side));
                    }
                    Looked::Delivered => this.watch = None,
                    Looked::Waiting => {}
                }
            }
            if end.is_some_and(|end| end <= now) {
                return Poll::Ready(lull);
            }
            let watched = this.watch.as_ref().map(|watch| watch.next);
            match (earlier(end, watched), &mut this.timer) {
                (Some(due), Some(timer)) => timer.reset(due),
                _ => this.timer = None,
            }
        }
    }
}

/// A timer that costs almost nothing to ask again: most turns of a relay move bytes, and change nothing here.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The one that the timer wakes when it fires.
    waker: Option<Waker>,
}

impl Timer {
    fn new(due: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(due)),
            waker: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_told = (self.waker.as_ref()).is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_told && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let fired = self.sleep.as_mut().poll(cx);
        self.waker = match fired {
            Poll::Ready(()) => None,
            Poll::Pending => Some(cx.waker().clone()),
        };
        fired
    }

    fn reset(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        self.waker = None;
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Checks whether peers acknowledge what they are sent.
///
/// The kernel's TCP_USER_TIMEOUT is not suitable: it also ends a peer that acknowledges but does
/// not read, and so keeps its window closed.
struct Watch {
    limit: Duration,
    next: Instant,
    /// Since when client and backend have acknowledged nothing, although they should.
    silent_since: [Instant; 2],
}

enum Looked {
    Silent(Side),
    /// No bytes are in flight any more.
    Delivered,
    Waiting,
}

impl Watch {
    fn new(now: Instant, limit: Duration) -> Self {
        Self {
            limit,
            next: now + limit / LOOKS,
            silent_since: [now; 2],
        }
    }

    fn look(
        &mut self,
        now: Instant,
        mut transmission: impl FnMut(Side) -> Option<Transmission>,
    ) -> Looked {
        let mut is_waiting = false;
        let sides = [Side::Client, Side::Backend];
        for (side, since) in sides.into_iter().zip(&mut self.silent_since) {
            let Some(it) = transmission(side) else {
                continue;
            };
            is_waiting |= it.is_unacknowledged || it.is_due;
            let heard = now.checked_sub(it.silent_for);
            if !it.is_due || heard.is_some_and(|heard| heard > *since) {
                *since = now;
            } else if now - *since >= self.limit {
                return Looked::Silent(side);
            }
        }
        self.next = now + self.limit / LOOKS;
        match is_waiting {
            true => Looked::Waiting,
            false => Looked::Delivered,
        }
    }
}

/// The number of checks in the time limit: a silent peer is noticed after at most the limit and a
/// quarter.
const LOOKS: u32 = 4;

/// Reports once a second, while a direction is blocked, that it is time for a check.
#[derive(Default)]
pub(super) struct Stalled(Option<Pin<Box<Sleep>>>);

impl Stalled {
    pub(super) fn is_due(&mut self, cx: &mut Context<'_>, blocked: bool) -> bool {
        if !blocked {
            // The timer is not reset until it has fired: bulk transfer is blocked and unblocked all
            // the time.
            self.0 = self.0.take().filter(|timer| !timer.is_elapsed());
            return false;
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
        let mut due = false;
        while timer.as_mut().poll(cx).is_ready() {
            due = true;
            timer.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        due
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const SETTINGS: InactivityTimeouts = InactivityTimeouts {
        idle: Some(Duration::from_secs(600)),
        half_close: None,
        unacknowledged: Some(LIMIT),
    };

    /// How and when a relay ends if the client's socket returns this at each check.
    async fn lull(transmission: impl Fn(Duration) -> Transmission) -> (Expired, Duration) {
        let start = Instant::now();
        let mut quiet = std::pin::pin!(IdleTimer::new(&SETTINGS));
        let mut moved = Some(start);
        let lull = std::future::poll_fn(|cx| {
            let look = |side| (side == Side::Client).then(|| transmission(start.elapsed()));
            quiet.as_mut().poll(cx, Phase::Open, moved.take(), look)
        });
        (lull.await, start.elapsed())
    }

    fn owing(silent_for: Duration) -> Transmission {
        Transmission {
            is_unacknowledged: true,
            acknowledged: 0,
            is_due: true,
            silent_for,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_acknowledges_nothing_is_silent() {
        let (lull, after) = lull(|since| owing(since + LIMIT)).await;
        assert!(lull == Expired::Silent(Side::Client));
        assert!((LIMIT..LIMIT + LIMIT / 4).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_went_silent_is_cut_after_its_time_and_a_quarter_of_it() {
        let went = Duration::from_secs(100);
        let silent_for = |now: Duration| now.saturating_sub(went);
        let (lull, after) = lull(|now| owing(silent_for(now))).await;
        assert!(lull == Expired::Silent(Side::Client));
        let bounds = went + LIMIT..=went + LIMIT + LIMIT / 2;
        assert!(bounds.contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_acknowledges_and_does_not_read_is_idle() {
        let (lull, after) = lull(|since| Transmission {
            is_due: false,
            ..owing(since)
        })
        .await;
        assert!(lull == Expired::Idle);
        assert_eq!(after, SETTINGS.idle.expect("it is set"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_is_gone_a_second_after_it_was_needed() {
        let mut stalled = Stalled::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(!stalled.is_due(&mut cx, true));
        assert!(!stalled.is_due(&mut cx, false));
        assert!(stalled.0.is_some());
        advance(LOOK_EVERY).await;
        assert!(!stalled.is_due(&mut cx, false));
        assert!(stalled.0.is_none());
    }
}
