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
//! network it has no turn, and its timeout needs none.
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

    /// Starts a round, with a new budget.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        with(|turns| turns.begin_round(cx.waker()));
    }
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
    fn begin_round(&mut self, worker: &Waker) {
        let known = self.round.worker.as_ref();
        if !known.is_some_and(|known| known.will_wake(worker)) {
            self.round.worker = Some(worker.clone());
        }
        if std::mem::take(&mut self.round.is_asked_for) {
            (self.taken, self.spent) = (0, Duration::ZERO);
            self.call();
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
        } else if !std::mem::replace(&mut self.round.is_asked_for, true)
            && let Some(worker) = &self.round.worker
        {
            worker.wake_by_ref();
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
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::rc::Rc;

    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// Runs the future as a worker does.
    fn on_a_worker(life: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_all().build();
        let mut rounds = Rounds::begin();
        let mut life = pin!(life);
        let runtime = runtime.expect("a runtime");
        runtime.block_on(poll_fn(|cx| {
            rounds.poll(cx);
            life.as_mut().poll(cx)
        }));
    }

    /// Takes about as long as a signature.
    fn work() {
        let begun = Instant::now();
        while begun.elapsed() < BUDGET {}
    }

    type Log = std::sync::Arc<std::sync::Mutex<String>>;

    fn say(log: &Log, what: char) {
        log.lock().expect("no panic").push(what);
    }

    /// The order of events when a hundred handshakes of three steps each are ready, beside a
    /// connection that has something to do after each poll of the driver.
    fn flood(step: fn()) -> String {
        let log = Log::default();
        on_a_worker(async {
            let mut handshakes = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let log = Log::clone(&log);
                handshakes.spawn(in_turn(Box::pin(async move {
                    for _ in 0..3 {
                        say(&log, 'h');
                        step();
                        yield_now().await;
                    }
                })));
            }
            let echoed = Log::clone(&log);
            let mut echo = tokio::task::JoinSet::new();
            echo.spawn(async move {
                loop {
                    say(&echoed, 'e');
                    yield_now().await;
                }
            });
            while handshakes.join_next().await.is_some() {}
        });
        let log = log.lock().expect("no panic").clone();
        assert_eq!(log.matches('h').count(), 300, "all have ended");
        log
    }

    #[test]
    fn one_costly_step_is_taken_between_two_polls_of_the_driver() {
        let log = flood(work);
        assert!(log.split('e').all(|steps| steps.len() <= 1), "{log}");
    }

    #[test]
    fn several_cheap_steps_are_taken_in_a_round() {
        let log = flood(|| {});
        assert!(log.split('e').all(|steps| steps.len() <= MOST), "{log}");
    }

    #[test]
    fn turns_are_given_in_the_order_of_requests() {
        let log = Log::default();
        on_a_worker(async {
            let mut handshakes = tokio::task::JoinSet::new();
            for name in 'a'..='z' {
                let log = Log::clone(&log);
                handshakes.spawn(in_turn(Box::pin(async move {
                    say(&log, name);
                    work();
                    rest().await;
                    say(&log, name.to_ascii_uppercase());
                    work();
                })));
            }
            while handshakes.join_next().await.is_some() {}
        });
        let names = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        assert_eq!(*log.lock().expect("no panic"), names);
    }

    #[test]
    fn a_handshake_that_waits_for_the_network_has_no_turn() {
        on_a_worker(async {
            let silent = in_turn(Box::pin(async {
                work();
                pending::<()>().await;
            }));
            let mut silent = pin!(silent);
            assert!(poll_fn(|cx| Poll::Ready(silent.as_mut().poll(cx).is_pending())).await);
            in_turn(Box::pin(ready(()))).await;
        });
    }

    #[test]
    fn a_handshake_that_leaves_the_queue_lets_the_next_one_continue() {
        on_a_worker(async {
            in_turn(Box::pin(async { work() })).await;
            let mut places: Vec<_> = (0..9)
                .map(|_| Box::pin(in_turn(Box::pin(ready(())))))
                .collect();
            for place in &mut places {
                assert!(poll_fn(|cx| Poll::Ready(place.as_mut().poll(cx).is_pending())).await);
            }
            let last = places.pop().expect("the ninth");
            // The first of them is called in the next round.
            yield_now().await;
            drop(places);
            last.await;
        });
    }

    #[test]
    fn on_a_thread_without_rounds_no_handshake_waits() {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let handshake = pin!(in_turn(Box::pin(async {
                work();
                rest().await;
            })));
            assert!(handshake.poll(&mut cx).is_ready());
        }
    }

    #[test]
    fn a_waiting_handshake_continues_when_the_worker_ends() {
        let done = Rc::new(Cell::new(false));
        let rounds = Rounds::begin();
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            in_turn(Box::pin(async { work() })).await;
            let mut waiting = pin!(in_turn(Box::pin(async { done.set(true) })));
            assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
            drop(rounds);
            waiting.await;
        });
        assert!(done.get());
    }
}
