use std::cell::Cell;
use std::future::{pending, ready};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

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

type Log = Arc<std::sync::Mutex<String>>;

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

/// Counts how often the worker is woken for a round.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the handshake is done after one poll.
fn is_done<F: Future>(handshake: Pin<&mut F>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    handshake.poll(&mut cx).is_ready()
}

#[test]
fn a_round_is_asked_for_only_while_a_handshake_waits() {
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    let mut worker = Context::from_waker(&waker);
    let mut rounds = Rounds::begin();
    rounds.poll(&mut worker);
    assert!(is_done(pin!(in_turn(Box::pin(async { work() })))));
    assert_eq!(woken.times(), 0, "the budget is spent, but nobody waits");
    let mut first = pin!(in_turn(Box::pin(async { work() })));
    let mut second = pin!(in_turn(Box::pin(ready(()))));
    assert!(!is_done(first.as_mut()) && !is_done(second.as_mut()));
    assert_eq!(woken.times(), 1);
    rounds.poll(&mut worker);
    assert!(is_done(first) && !is_done(second.as_mut()));
    assert_eq!(woken.times(), 2, "the second one still waits");
    rounds.poll(&mut worker);
    assert!(is_done(second));
    assert_eq!(woken.times(), 2);
}

#[test]
fn a_worker_that_was_idle_has_a_new_budget() {
    let _rounds = Rounds::begin();
    let (idle, is_idle) = std::sync::mpsc::sync_channel(1);
    let runtime = Builder::new_current_thread()
        .on_thread_park(move || _ = idle.try_send(()))
        .on_thread_unpark(super::woken)
        .build();
    runtime.expect("a runtime").block_on(async {
        in_turn(Box::pin(async { work() })).await;
        let (tell, told) = tokio::sync::oneshot::channel();
        let other = std::thread::spawn(move || {
            is_idle.recv().expect("it becomes idle");
            tell.send(()).expect("it waits");
            is_idle
        });
        told.await.expect("it tells");
        assert!(is_done(pin!(in_turn(Box::pin(ready(()))))));
        drop(other.join().expect("no panic"));
    });
}
