//! Bounds the share of a worker's time that handshakes may take in each round.
//!
//! ```text
//! driver polled ─► Rounds: a new budget ─► tasks of established connections ─► turns ─► driver polled
//! ```
//!
//! A step of a handshake takes up to a hundred times as long as moving a message, and unknown
//! clients decide how many there are. So a handshake continues only in its turn, in the order of
//! requests. Once [`BUDGET`] is spent, the worker polls for new events before the next turn, and
//! tasks that these wake run first. A turn ends when the handshake waits. While it waits for the
//! network it has no turn, and its timeout needs none. A worker that was idle polls for events
//! anyway; a round is asked for only while a handshake waits for its turn.
//!
//! Threads of low priority do better in a flood and worse in calm: docs/performance/handshakes.md.
//!
//! Without a worker there are no rounds, and every handshake continues at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Runs the handshake whenever it is its turn.
///
/// # Cancel safety
///
/// As cancel safe as the handshake.
pub(super) async fn in_turn<F: Future>(mut handshake: Pin<Box<F>>) -> F::Output {
    let mut place = Place(None);
    poll_fn(|cx| {
        if !place.is_next(cx) {
            return Poll::Pending;
        }
        let _turn = Turn;
        step(handshake.as_mut(), cx)
    })
    .await
}

// A function of its own, so that its stack can be wiped of secrets.
#[inline(never)]
fn step<F: Future>(handshake: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    handshake.poll(cx)
}

/// Ends a turn in the middle of a handshake if the budget is spent. The handshake gets another turn
/// behind those that wait.
pub(super) async fn rest() {
    let mut is_rested = !with(|turns| turns.is_spent()).unwrap_or(false);
    poll_fn(|cx| {
        if is_rested {
            return Poll::Ready(());
        }
        is_rested = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Gives turns to the handshakes of this thread while it exists.
///
/// It must be polled as the runtime's main future or within it. The runtime polls that future after
/// the driver, once each time, and before the tasks that the driver has woken.
#[derive(Debug)]
pub(crate) struct Rounds(());

impl Rounds {
    pub(crate) fn begin() -> Self {
        TURNS.set(Some(Turns::default()));
        Self(())
    }

    /// Starts a round, with a new budget, if a handshake has asked for one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        with(|turns| turns.polled(cx.waker()));
    }
}

/// Starts a round on this thread, with a new budget. The runtime calls it after a poll of the driver
/// when no task was left to run.
pub(crate) fn woken() {
    with(Turns::begin_round);
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // At the end of the thread they may be gone already.
        let turns = TURNS.try_with(RefCell::take).ok().flatten();
        turns
            .into_iter()
            .flat_map(|turns| turns.waiting)
            .for_each(|(_, waker)| waker.wake());
    }
}

thread_local! {
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// The turns of this thread, if it has any.
fn with<T>(act: impl FnOnce(&mut Turns) -> T) -> Option<T> {
    let turns = TURNS.try_with(|turns| turns.borrow_mut().as_mut().map(act));
    turns.ok().flatten()
}

#[derive(Debug, Default)]
struct Turns {
    /// The number of the last handshake that had to wait. Numbers are never used twice.
    last: u64,
    /// In the order of their requests.
    waiting: VecDeque<(u64, Waker)>,
    /// The handshake whose turn it is, until it takes the turn.
    called: Option<u64>,
    /// The start of the current turn.
    began: Option<Instant>,
    /// The number of turns in this round.
    taken: usize,
    spent: Duration,
    round: Round,
}

/// What starts the next round.
#[derive(Debug, Default)]
struct Round {
    worker: Option<Waker>,
    is_asked_for: bool,
}

impl Turns {
    fn polled(&mut self, worker: &Waker) {
        let known = self.round.worker.as_ref();
        if !known.is_some_and(|known| known.will_wake(worker)) {
            self.round.worker = Some(worker.clone());
        }
        if self.round.is_asked_for {
            self.begin_round();
        }
    }

    fn begin_round(&mut self) {
        self.round.is_asked_for = false;
        (self.taken, self.spent) = (0, Duration::ZERO);
        self.call();
    }

    fn ask_for_round(&mut self) {
        if !std::mem::replace(&mut self.round.is_asked_for, true)
            && let Some(worker) = &self.round.worker
        {
            worker.wake_by_ref();
        }
    }

    /// Whether the turn may be taken now. If not, the handshake keeps its place in the queue.
    fn is_next(&mut self, place: &mut Option<u64>, cx: &Context<'_>) -> bool {
        let is_next = match *place {
            Some(number) => self.called == Some(number),
            None => self.called.is_none() && self.waiting.is_empty() && !self.is_spent(),
        };
        if is_next {
            (*place, self.called) = (None, None);
            self.began = Some(Instant::now());
            return true;
        }
        match *place {
            Some(number) => self.keep(number, cx.waker()),
            None => {
                self.last += 1;
                *place = Some(self.last);
                self.waiting.push_back((self.last, cx.waker().clone()));
                // Otherwise the turn in progress, or the next one, ends with the call or the request.
                if self.called.is_none() && self.began.is_none() {
                    self.ask_for_round();
                }
            }
        }
        false
    }

    fn keep(&mut self, number: u64, waker: &Waker) {
        if let Ok(index) = self
            .waiting
            .binary_search_by_key(&number, |(number, _)| *number)
        {
            self.waiting[index].1.clone_from(waker);
        }
    }

    fn leave(&mut self, number: u64) {
        if self.called == Some(number) {
            self.called = None;
            self.call();
        } else if let Ok(index) = self
            .waiting
            .binary_search_by_key(&number, |(number, _)| *number)
        {
            self.waiting.remove(index);
        }
    }

    fn end_turn(&mut self) {
        self.taken += 1;
        self.spent += self
            .began
            .take()
            .map_or(Duration::ZERO, |began| began.elapsed());
        if !self.is_spent() {
            self.call();
        } else if !self.waiting.is_empty() {
            self.ask_for_round();
        }
    }

    /// Calls the next one, unless one was called already.
    fn call(&mut self) {
        if self.called.is_none()
            && let Some((number, waker)) = self.waiting.pop_front()
        {
            self.called = Some(number);
            waker.wake();
        }
    }

    fn is_spent(&self) -> bool {
        let running = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.taken >= MOST || self.spent + running >= BUDGET
    }
}

/// A place in the queue. Dropping it lets the next one continue.
struct Place(Option<u64>);

impl Place {
    fn is_next(&mut self, cx: &Context<'_>) -> bool {
        with(|turns| turns.is_next(&mut self.0, cx)).unwrap_or(true)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            with(|turns| turns.leave(number));
        }
    }
}

/// A turn in progress. It ends also if the handshake panics.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        with(Turns::end_turn);
    }
}

/// Less than the key exchange and signature of the cheapest handshake: a round has one of those, or
/// several cheap steps, such as a part of a ClientHello or a client that left.
const BUDGET: Duration = Duration::from_micros(50);
/// So that the limit does not depend on the clock alone.
const MOST: usize = 16;

#[cfg(test)]
mod tests;
