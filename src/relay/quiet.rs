//! The timers of a relay: nothing moves for too long, or one side is stalled and must be looked at.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{End, Settings};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    HalfClosed,
}

/// Notices when nothing has moved for too long.
///
/// The timer is moved when it fires, not with every byte: it then looks when bytes last moved.
pub(super) struct Quiet {
    settings: Settings,
    phase: Phase,
    /// When bytes last moved, or the phase began: a close after a long silence must leave the
    /// other side its time.
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Quiet {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Open,
            since: Instant::now(),
            timer: None,
        }
    }

    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        phase: Phase,
        moved: bool,
    ) -> Poll<End> {
        if phase != self.phase {
            self.phase = phase;
            self.timer = None;
            self.since = Instant::now();
        }
        if moved {
            self.since = Instant::now();
        }
        let (limit, end) = match phase {
            Phase::Open => (self.settings.idle, End::Idle),
            Phase::HalfClosed => (self.settings.half_close, End::HalfClosed),
        };
        let Some(due) = limit.and_then(|limit| self.since.checked_add(limit)) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(end);
            }
            timer.as_mut().reset(due);
        }
    }
}

/// Says once a second, while a direction is blocked, that it is time to look.
#[derive(Default)]
pub(super) struct Stalled(Option<Pin<Box<Sleep>>>);

impl Stalled {
    pub(super) fn is_due(&mut self, cx: &mut Context<'_>, blocked: bool) -> bool {
        if !blocked {
            // Left as it is until it has come: bulk transfer is blocked and unblocked all the time.
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
