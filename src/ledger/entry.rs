//! The shared data of one open connection: observers read it while the connection runs, and can end
//! the connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::facts::Facts;
use crate::id::Id;
use crate::moment::Moment;
use crate::outcome::EndCause;
use crate::traffic::Traffic;

/// The stage of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConnectionState {
    /// From accept to the end of the handshake; on a plaintext listener, until a route is chosen.
    Handshaking,
    /// The connection waits for its backend.
    Waiting,
    /// Bytes move between the client and the backend.
    Relaying,
    /// Both sides are being told that the connection ends.
    Closing,
}

impl ConnectionState {
    pub(crate) const ALL: [Self; 4] = [
        Self::Handshaking,
        Self::Waiting,
        Self::Relaying,
        Self::Closing,
    ];

    /// The word for logs, metrics and the admin API, for example `relaying`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshaking => "handshaking",
            Self::Waiting => "waiting",
            Self::Relaying => "relaying",
            Self::Closing => "closing",
        }
    }
}

/// An open connection in the ledger, shared between its own task and observers.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: Id,
    pub traffic: Traffic,
    started: Moment,
    known: Mutex<Known>,
    state: AtomicU8,
    /// One more than the number of streams in the tunnel that it carries; 0 if it carries none.
    carried: AtomicU16,
    /// The number of the backend's address that serves it; 0 if it has none.
    address: AtomicU32,
    /// [`EndCause::to_u8`], or [`NONE`]. A connection reads it at every wake-up, so reading takes
    /// no lock.
    end: AtomicU8,
    /// The waker of the connection's task, for when a cause is set.
    waker: Mutex<Option<Waker>>,
}

/// What is known of a connection so far. The lock is held only to copy a pointer.
#[derive(Debug)]
struct Known {
    facts: Arc<Facts>,
    /// The client's certificate chain as the client sent it.
    chain: Option<Arc<[CertificateDer<'static>]>>,
}

impl Entry {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            id: facts.id,
            traffic: Traffic::default(),
            started: Moment::now(),
            known: Mutex::new(Known {
                facts: Arc::new(facts),
                chain: None,
            }),
            state: AtomicU8::new(ConnectionState::Handshaking as u8),
            carried: AtomicU16::new(0),
            address: AtomicU32::new(0),
            end: AtomicU8::new(NONE),
            waker: Mutex::default(),
        }
    }

    /// The facts known so far.
    pub(crate) fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.known().facts)
    }

    /// The client's certificate chain as the client sent it, if it sent one.
    pub(crate) fn chain(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.known().chain.clone()
    }

    pub(crate) fn state(&self) -> ConnectionState {
        ConnectionState::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Whether other connections go through this one now. Each of them is idle or busy by itself.
    pub(super) fn is_carrying(&self) -> bool {
        self.carried.load(Ordering::Relaxed) > 1
    }

    /// The number of streams in the tunnel that it carries. `None` if it carries no tunnel.
    pub(crate) fn carried(&self) -> Option<u16> {
        self.carried.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Notes the number of streams in it. Without any, it is idle from now on.
    pub(super) fn carry(&self, streams: usize) {
        let now = u16::try_from(streams).map_or(u16::MAX, |streams| streams.saturating_add(1));
        let before = self.carried.swap(now, Ordering::Relaxed);
        if before > 1 && streams == 0 {
            self.traffic.moved(Moment::now());
        }
    }

    /// The time since accept.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time since a byte of payload moved in either direction, or since accept if none has.
    pub(crate) fn idle(&self) -> Duration {
        self.traffic.last().elapsed()
    }

    /// Tells the connection to end. Returns false if it had been told before, and then the first cause stays, or
    /// if it has ended already: then this only shortens its close.
    pub(crate) fn end(&self, cause: EndCause) -> bool {
        let (order, failure) = (Ordering::Release, Ordering::Relaxed);
        let cause = cause.to_u8();
        // Before the wake-up: the connection may be closing because of this very cause when it returns.
        let has_ended = self.state() == ConnectionState::Closing;
        let given = self.end.compare_exchange(NONE, cause, order, failure);
        if given.is_ok() {
            let waker = self.waker().take();
            waker.into_iter().for_each(Waker::wake);
        }
        given.is_ok() && !has_ended
    }

    fn end_cause(&self) -> Option<EndCause> {
        EndCause::from_u8(self.end.load(Ordering::Acquire))
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection is told to end, and returns the cause.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the cause is set meanwhile, the next call returns at once.
    pub(crate) fn ended(&self) -> Ended<'_> {
        Ended {
            entry: self,
            registered: None,
        }
    }

    // SeqCst: an order for the address and the start of a connection there meet in these two, see
    // src/backend/pool/order.rs.
    pub(super) fn set_address(&self, address: u32) {
        self.address.store(address, Ordering::SeqCst);
    }

    pub(super) fn address(&self) -> u32 {
        self.address.load(Ordering::SeqCst)
    }

    pub(super) fn set_state(&self, state: ConnectionState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Adds to the facts. This copies them only while an observer holds them.
    pub(super) fn learn(&self, learn: impl FnOnce(&mut Facts)) {
        learn(Arc::make_mut(&mut self.known().facts));
    }

    pub(crate) fn keep_chain(&self, chain: Arc<[CertificateDer<'static>]>) {
        self.known().chain = Some(chain);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NONE: u8 = 0;

/// See [`Entry::ended`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Ended<'a> {
    entry: &'a Entry,
    /// The waker that is registered in the entry.
    registered: Option<Waker>,
}

impl Future for Ended<'_> {
    type Output = EndCause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EndCause> {
        if let Some(cause) = self.entry.end_cause() {
            return Poll::Ready(cause);
        }
        let waker = cx.waker();
        if !matches!(&self.registered, Some(registered) if registered.will_wake(waker)) {
            *self.entry.waker() = Some(waker.clone());
            self.registered = Some(waker.clone());
        }
        // The cause may have been set before the waker was registered, and then nothing wakes this
        // task.
        self.entry.end_cause().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn entry() -> Entry {
        Entry::new(Facts::new("app"))
    }

    #[test]
    fn the_first_cause_stands() {
        let entry = entry();
        assert!(entry.end(EndCause::Revoked));
        assert!(!entry.end(EndCause::Drained));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let polled = pin!(entry.ended()).poll(&mut cx);
            assert_eq!(polled, Poll::Ready(EndCause::Revoked));
        }
    }

    #[test]
    fn the_last_waker_is_the_one_that_is_woken() {
        let entry = entry();
        let wakers = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        let mut ended = pin!(entry.ended());
        for waker in wakers.clone().map(Waker::from) {
            let mut cx = Context::from_waker(&waker);
            assert!(ended.as_mut().poll(&mut cx).is_pending());
        }
        entry.end(EndCause::Killed);
        let times = wakers.map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!(times, [0, 1]);
    }

    /// A waker whose connection closes at once, as on another thread.
    struct Closes(Arc<Entry>);

    impl Wake for Closes {
        fn wake(self: Arc<Self>) {
            self.0.set_state(ConnectionState::Closing);
        }
    }

    #[test]
    fn a_connection_that_closes_as_soon_as_it_is_told_was_told() {
        let entry = Arc::new(entry());
        let waker = Waker::from(Arc::new(Closes(Arc::clone(&entry))));
        let mut ended = pin!(entry.ended());
        let polled = ended.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        assert!(entry.end(EndCause::Killed));
        let closing = self::entry();
        closing.set_state(ConnectionState::Closing);
        assert!(!closing.end(EndCause::Killed));
    }

    #[test]
    fn polling_again_takes_no_lock() {
        let entry = entry();
        let waker = Waker::from(Arc::new(Woken::default()));
        let mut cx = Context::from_waker(&waker);
        let mut ended = pin!(entry.ended());
        assert!(ended.as_mut().poll(&mut cx).is_pending());
        let (looked, has_looked) = mpsc::sync_channel(1);
        let (locked, is_locked) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let entry = &entry;
            let holder = scope.spawn(move || {
                let _held = entry.waker();
                locked.send(()).expect("the test");
                // This fails only if the reader waits for the lock.
                has_looked.recv_timeout(Duration::from_secs(10))
            });
            is_locked.recv().expect("the holder");
            assert!(ended.as_mut().poll(&mut cx).is_pending());
            looked.send(()).expect("the holder");
            let looked = holder.join().expect("no panic");
            assert!(looked.is_ok(), "it waited for the lock");
        });
    }

    #[test]
    fn facts_that_an_observer_holds_do_not_change() {
        let entry = entry();
        let before = entry.facts();
        entry.learn(|facts| facts.backend = "other".into());
        assert_eq!(
            (&*before.backend, &*entry.facts().backend),
            ("app", "other")
        );
    }

    /// Every idle connection has an entry beside its facts.
    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 112, "{}", size_of::<Entry>());
    }
}
