//! The tunnels that one worker has to one address, and the places in them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use super::census::{Count, Counted, TunnelCounts};
use crate::backend::dial_error::DialError;
use crate::identity::Identity;
use crate::tunnel::Originated;

/// The tunnels to one address that take new streams.
pub(super) struct Shelf {
    state: Mutex<State>,
    /// Told when a connection that has found no place may find one.
    freed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The oldest is filled first, so that few are needed.
    open: Vec<Arc<Tunnel>>,
    /// Those that take no more streams and have not ended yet.
    leaving: Vec<Weak<Tunnel>>,
    dial: Option<watch::Sender<Option<Outcome>>>,
}

/// How a dial has ended. `None` while it has not.
pub(super) type Outcome = Result<(), DialError>;

/// What a connection finds on a shelf.
pub(super) enum Entrance {
    Berth(Berth),
    /// No tunnel has a place, and no other one may be dialled.
    Full,
    /// A tunnel is being dialled for all who wait.
    Dialled(watch::Receiver<Option<Outcome>>),
    /// The caller has to dial a tunnel.
    Begun(Pending),
}

impl Shelf {
    pub(super) fn new(freed: Arc<Notify>) -> Self {
        Self {
            state: Mutex::default(),
            freed,
        }
    }

    /// Takes a place in a tunnel, if there is one. There are at most `most` tunnels. `avoided` is not taken.
    pub(super) fn enter(self: &Arc<Self>, most: usize, avoided: Option<&Arc<Tunnel>>) -> Entrance {
        let mut state = self.state();
        state.open.retain(|it| it.originated.is_open());
        let is_avoided = |it: &Arc<Tunnel>| avoided.is_some_and(|avoided| Arc::ptr_eq(it, avoided));
        let mut others = state.open.iter().filter(|it| !is_avoided(it));
        if let Some(tunnel) = others.find(|it| it.take()) {
            return Entrance::Berth(Berth {
                _count: tunnel.count.and(Counted::Stream),
                tunnel: Arc::clone(tunnel),
                shelf: Arc::clone(self),
                is_refused: false,
            });
        }
        if let Some(dial) = &state.dial {
            return Entrance::Dialled(dial.subscribe());
        }
        if state.open.len() >= most {
            return Entrance::Full;
        }
        let (told, receiver) = watch::channel(None);
        state.dial = Some(told.clone());
        Entrance::Begun(Pending {
            shelf: Arc::clone(self),
            told,
            receiver: Some(receiver),
        })
    }

    /// Whether it can be forgotten.
    pub(super) fn is_unused(self: &Arc<Self>) -> bool {
        let state = self.state();
        // The caller's map has one.
        state.open.is_empty() && state.dial.is_none() && Arc::strong_count(self) == 1
    }

    /// Takes a tunnel off that has no stream. Returns false if it has one.
    pub(super) fn close(&self, tunnel: &Arc<Tunnel>) -> bool {
        let mut state = self.state();
        let is_quiet = tunnel.is_quiet();
        if is_quiet {
            state.open.retain(|it| !Arc::ptr_eq(it, tunnel));
        }
        is_quiet
    }

    /// Takes a tunnel off that takes no more streams. Another one may be dialled.
    pub(super) fn remove(&self, tunnel: &Arc<Tunnel>) {
        let mut state = self.state();
        state.open.retain(|it| !Arc::ptr_eq(it, tunnel));
        state.leaving.retain(|it| it.strong_count() > 0);
        if !tunnel.has_left.swap(true, Ordering::AcqRel) {
            state.leaving.push(Arc::downgrade(tunnel));
        }
        drop(state);
        self.freed.notify_waiters();
    }

    /// Tells connections that have found no place that there may be several.
    pub(super) fn say_free(&self) {
        self.freed.notify_waiters();
    }

    /// Tells one connection that has found no place.
    pub(super) fn say_one_is_free(&self) {
        self.freed.notify_one();
    }

    /// Waits until there may be a place for one connection more. Cancel safe.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The tunnels, also those that take no more streams, and their streams.
    pub(super) fn count(&self) -> TunnelCounts {
        let state = self.state();
        let leaving = state.leaving.iter().filter_map(Weak::upgrade);
        let all = state.open.iter().cloned().chain(leaving);
        let each = all.map(|it| TunnelCounts {
            tunnels: 1,
            streams: it.taken.load(Ordering::Acquire),
        });
        each.sum()
    }

    pub(super) fn look_again(&self) {
        let state = self.state();
        state.open.iter().for_each(|it| it.changed.notify_one());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dial that has begun. Dropping it ends the wait for it.
pub(super) struct Pending {
    shelf: Arc<Shelf>,
    told: watch::Sender<Option<Outcome>>,
    receiver: Option<watch::Receiver<Option<Outcome>>>,
}

impl Pending {
    /// How the dial will have ended.
    pub(super) fn told(&self) -> watch::Receiver<Option<Outcome>> {
        self.told.subscribe()
    }

    /// Waits until nobody waits for the dial.
    pub(super) async fn abandoned(&self) {
        self.told.closed().await;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.told.is_closed()
    }

    pub(super) fn forget_own_receiver(&mut self) {
        self.receiver = None;
    }

    /// Puts the tunnel on the shelf, and tells those who wait.
    pub(super) fn opened(self, tunnel: &Arc<Tunnel>) {
        let mut state = self.shelf.state();
        state.open.push(Arc::clone(tunnel));
        state.dial = None;
        drop(state);
        self.told.send_replace(Some(Ok(())));
    }

    pub(super) fn failed(self, error: DialError) {
        self.shelf.state().dial = None;
        self.told.send_replace(Some(Err(error)));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.shelf.state();
        let is_ours = |it: &watch::Sender<Option<Outcome>>| it.same_channel(&self.told);
        if state.dial.as_ref().is_some_and(is_ours) {
            state.dial = None;
        }
    }
}

/// A tunnel that we have opened.
pub(super) struct Tunnel {
    pub originated: Originated,
    pub identity: Box<Identity>,
    /// The number of streams that the configuration allows.
    most: usize,
    taken: AtomicUsize,
    has_left: AtomicBool,
    /// Told when a stream has ended, and when the tunnel may have to end.
    pub changed: Notify,
    count: Count,
}

impl Tunnel {
    pub(super) fn new(
        originated: Originated,
        identity: Box<Identity>,
        most: u32,
        count: Count,
    ) -> Self {
        Self {
            originated,
            identity,
            most: most as usize,
            taken: AtomicUsize::new(0),
            has_left: AtomicBool::new(false),
            changed: Notify::new(),
            count,
        }
    }

    /// Called under the lock of the shelf.
    fn take(&self) -> bool {
        let most = self.most.min(self.originated.allowed());
        let has_room = self.taken.load(Ordering::Acquire) < most;
        if has_room {
            self.taken.fetch_add(1, Ordering::AcqRel);
        }
        has_room
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.taken.load(Ordering::Acquire) == 0
    }
}

/// A place for one stream in a tunnel. Dropping it gives it to another one.
pub(crate) struct Berth {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) shelf: Arc<Shelf>,
    /// The peer has given no stream for it: whoever waits for a place would be refused as well.
    pub(super) is_refused: bool,
    _count: Count,
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.tunnel.taken.fetch_sub(1, Ordering::AcqRel);
        self.tunnel.changed.notify_one();
        if !self.is_refused {
            self.shelf.say_one_is_free();
        }
    }
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Berth")
    }
}
