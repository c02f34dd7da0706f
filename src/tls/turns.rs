//! What of a worker handshakes may have: a few turns in each round of its tasks, however many
//! handshakes are ready.
//!
//! A step of a handshake takes a hundred times as long as to move a message, and strangers decide how
//! many there are. So whoever has a connection waits for a few of them at most, and not for all.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::ready;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio_util::sync::PollSemaphore;

/// Runs the handshake whenever it is its turn.
///
/// # Cancel safety
///
/// As that of the handshake.
pub(super) async fn in_turn<F: Future>(mut handshake: Pin<Box<F>>) -> F::Output {
    let round = ROUND.with(Arc::clone);
    let mut turns = PollSemaphore::new(Arc::clone(&round.turns));
    poll_fn(move |cx| {
        // `None` is a closed semaphore, which this one never is.
        if let Some(turn) = ready!(turns.poll_acquire(cx)) {
            round.take(turn);
        }
        handshake.as_mut().poll(cx)
    })
    .await
}

/// The turns of a worker. Once all are taken they are given back together, in the next round.
struct Round {
    turns: Arc<Semaphore>,
    taken: AtomicUsize,
}

impl Round {
    fn take(self: &Arc<Self>, turn: OwnedSemaphorePermit) {
        turn.forget();
        if self.taken.fetch_add(1, Ordering::AcqRel) + 1 < TURNS {
            return;
        }
        let end = End(Arc::clone(self));
        if let Ok(worker) = Handle::try_current() {
            worker.spawn(async move {
                // When the worker has looked for what has come meanwhile: behind all of that.
                yield_now().await;
                drop(end);
            });
        }
    }
}

/// Gives the turns back, also where a runtime ends before.
struct End(Arc<Round>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.taken.store(0, Ordering::Release);
        self.0.turns.add_permits(TURNS);
    }
}

thread_local! {
    static ROUND: Arc<Round> = Arc::new(Round {
        turns: Arc::new(Semaphore::new(TURNS)),
        taken: AtomicUsize::new(0),
    });
}

/// With some 100 µs each they delay the others by less than what is noticed, and where a thousand
/// connections are busy there are still hundreds of handshakes a second.
const TURNS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn between_two_turns_of_a_connection_there_are_but_a_few_handshakes() {
        const HANDSHAKES: usize = 100;
        let log = Arc::new(Mutex::new(String::new()));
        let say = |what, log: &Mutex<String>| log.lock().expect("no panic").push(what);
        let mut handshakes = JoinSet::new();
        for _ in 0..HANDSHAKES {
            let log = Arc::clone(&log);
            handshakes.spawn(in_turn(Box::pin(async move {
                for _ in 0..3 {
                    say('h', &log);
                    yield_now().await;
                }
            })));
        }
        let relayed = Arc::clone(&log);
        let relay = tokio::spawn(async move {
            loop {
                say('r', &relayed);
                yield_now().await;
            }
        });
        handshakes.join_all().await;
        relay.abort();
        let log = log.lock().expect("no panic");
        assert_eq!(log.matches('h').count(), 3 * HANDSHAKES);
        assert!(log.split('r').all(|turns| turns.len() <= TURNS), "{log}");
    }
}
