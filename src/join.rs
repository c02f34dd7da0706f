//! Serves connections that fronts elsewhere offer: `[[join]]`, and `vestibule join`.
//!
//! ```text
//! Front ─ dial ─► tunnel ─ offer ─► 200 and facts ─► the local server ─► one zero byte ─► bytes both ways
//!   ▲                        │                              └► it does not answer: RST_STREAM, and no offers
//!   └── again, with growing pauses ◄── lost, draining, refused ──────────── until it answers again
//! ```
//!
//! A connection that was offered is a connection like any other here: with its own record, limits, timeouts and
//! outcome. Each worker thread has its own tunnels, and a share of the offers.

mod backoff;
mod dial;
mod front;
mod offers;
mod told;

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::front::Front;
use crate::active_config::ActiveJoin;
use crate::proxy_state::ProxyState;

/// Which of several threads this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub index: usize,
    pub of: usize,
}

impl Share {
    /// One for each of `of` threads.
    pub(crate) fn all(of: usize) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// The part of `offers` of this thread. The first one of a further join goes to another thread.
    fn of(self, offers: usize, join: usize) -> usize {
        let turn = (self.index + join) % self.of;
        offers / self.of + usize::from(turn < offers % self.of)
    }
}

/// Keeps the tunnels that the active configuration asks for, until a drain starts. The fronts' tasks end with
/// their last connections.
pub(crate) async fn follow(state: Arc<ProxyState>, share: Share, tasks: TaskTracker) {
    let mut changes = state.reloaded.subscribe();
    let mut running: Vec<(Arc<ActiveJoin>, DropGuard)> = Vec::new();
    loop {
        changes.mark_unchanged();
        let config = state.config.load_full();
        running.retain(|(join, _)| config.joins.iter().any(|it| Arc::ptr_eq(it, join)));
        for (index, join) in config.joins.iter().enumerate() {
            if running.iter().any(|(it, _)| Arc::ptr_eq(it, join)) {
                continue;
            }
            let stop = CancellationToken::new();
            let offers = share.of(join.settings.offers, index);
            for number in 0..join.fronts.len() {
                if offers > 0 {
                    let front = Front::new(&state, join, number, (share.index, offers));
                    tasks.spawn(front.run(stop.clone()));
                }
            }
            running.push((Arc::clone(join), stop.drop_guard()));
        }
        drop(config);
        tokio::select! {
            biased;
            () = state.drain.started() => return,
            // The sender is in `state`.
            _ = changes.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_share_all_offers() {
        for of in 1..9 {
            for offers in 1..20 {
                for join in 0..3 {
                    let shares = Share::all(of).map(|share| share.of(offers, join));
                    assert_eq!(shares.sum::<usize>(), offers);
                }
            }
        }
    }
}
