//! A number that any thread may read, change, and wait on, with no lock on the way of a reader.
//!
//! ```text
//! until(is_so) ─ poll ─► is it so? one load
//!                        once: the waker into the list of its own thread
//! change(f) ────────────► the number, then every list: all wake and look
//! ```
//!
//! A listener waits on such a number and looks at it whenever it is woken, which is with every connection.
//! What else can be waited on so (tokio's `Notify`, `watch` and `CancellationToken`) takes a lock at each
//! look, and all workers would take the same.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(crate) struct AtomicWatch {
    now: AtomicUsize,
    waiting: [List; LISTS],
}

impl Default for AtomicWatch {
    fn default() -> Self {
        Self {
            now: AtomicUsize::new(0),
            waiting: std::array::from_fn(|_| List::default()),
        }
    }
}

impl AtomicWatch {
    pub(crate) fn get(&self) -> usize {
        self.now.load(Ordering::Acquire)
    }

    /// Changes the number and wakes who waits on it.
    pub(crate) fn change(&self, change: impl Fn(usize) -> usize) {
        let always = |now| Some(change(now));
        let _ = self
            .now
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, always);
        for list in &self.waiting {
            // Each stays in the list until it leaves by itself.
            let wakers: Vec<Waker> = list.lock().wakers.iter().flatten().cloned().collect();
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until `is_so` holds of the number. One that only passes by may be missed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a later wait looks anew.
    pub(crate) const fn until<F: Fn(usize) -> bool>(&self, is_so: F) -> Until<'_, F> {
        Until {
            level: self,
            is_so,
            place: None,
        }
    }
}

/// See [`AtomicWatch::until`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Until<'a, F> {
    level: &'a AtomicWatch,
    is_so: F,
    place: Option<Place>,
}

/// Where a waker is kept, and which.
#[derive(Debug)]
struct Place {
    list: u32,
    index: u32,
    waker: Waker,
}

// The condition is called and never pinned.
impl<F> Unpin for Until<'_, F> {}

impl<F: Fn(usize) -> bool> Future for Until<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if (self.is_so)(self.level.get()) {
            return Poll::Ready(());
        }
        match &self.place {
            Some(place) if place.waker.will_wake(cx.waker()) => return Poll::Pending,
            _ => self.enter(cx.waker()),
        }
        // A change that came before the waker was in its list has woken nobody.
        match (self.is_so)(self.level.get()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<F> Until<'_, F> {
    fn enter(&mut self, waker: &Waker) {
        self.leave();
        let list = LIST.with(|list| *list);
        let index = self.level.waiting[list as usize].lock().insert(waker);
        self.place = Some(Place {
            list,
            index,
            waker: waker.clone(),
        });
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            let mut list = self.level.waiting[place.list as usize].lock();
            list.remove(place.index);
        }
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Those that began to wait on one thread. On a cache line of its own, so that threads do not
/// slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct List(Mutex<Wakers>);

impl List {
    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Wakers {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Wakers {
    fn insert(&mut self, waker: &Waker) -> u32 {
        let waker = Some(waker.clone());
        match self.free.pop() {
            Some(index) => {
                self.wakers[index as usize] = waker;
                index
            }
            None => {
                self.wakers.push(waker);
                (self.wakers.len() - 1) as u32
            }
        }
    }

    fn remove(&mut self, index: u32) {
        self.wakers[index as usize] = None;
        self.free.push(index);
        // The memory of a burst is given back when it is over.
        if self.free.len() == self.wakers.len() && self.wakers.capacity() > KEPT {
            *self = Self::default();
        }
    }
}

/// So many places are kept while nobody waits.
const KEPT: usize = 64;

/// More threads than this share lists, which is right and no faster.
const LISTS: usize = 64;

thread_local! {
    /// The list of this thread: a connection never leaves its worker, and so meets no other
    /// worker at a lock.
    static LIST: u32 = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        (THREADS.fetch_add(1, Ordering::Relaxed) % LISTS) as u32
    };
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::sync::{Arc, mpsc};
    use std::task::Wake;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Counts how often it is woken.
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

    fn woken() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (Arc::clone(&woken), Waker::from(woken))
    }

    fn waiting(level: &AtomicWatch) -> usize {
        let lists = level.waiting.iter();
        lists
            .map(|list| list.lock().wakers.iter().flatten().count())
            .sum()
    }

    #[test]
    fn who_waits_is_woken_by_each_change_and_ready_when_it_is_so() {
        let level = AtomicWatch::default();
        let (woken, waker) = woken();
        let mut cx = Context::from_waker(&waker);
        let mut until = pin!(level.until(|now| now >= 2));
        assert!(until.as_mut().poll(&mut cx).is_pending());
        level.change(|now| now + 1);
        assert_eq!(woken.times(), 1);
        assert!(until.as_mut().poll(&mut cx).is_pending());
        level.change(|now| now + 1);
        assert_eq!(woken.times(), 2);
        assert!(until.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn to_look_again_takes_no_lock() {
        let level = AtomicWatch::default();
        let (_, waker) = woken();
        let mut cx = Context::from_waker(&waker);
        let mut until = pin!(level.until(|now| now > 0));
        assert!(until.as_mut().poll(&mut cx).is_pending());
        let (looked, has_looked) = mpsc::sync_channel(1);
        let (locked, is_locked) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let lists = &level.waiting;
            let holder = scope.spawn(move || {
                let all: Vec<_> = lists.iter().map(List::lock).collect();
                locked.send(()).expect("the test");
                // So long only if the look waits for the locks.
                let looked = has_looked.recv_timeout(Duration::from_secs(10));
                drop(all);
                looked
            });
            is_locked.recv().expect("the holder");
            assert!(until.as_mut().poll(&mut cx).is_pending());
            looked.send(()).expect("the holder");
            let looked = holder.join().expect("no panic");
            assert!(looked.is_ok(), "it waited for a lock");
        });
    }

    #[test]
    fn the_last_waker_is_the_one_that_is_woken() {
        let level = AtomicWatch::default();
        let ((first, one), (second, two)) = (woken(), woken());
        let mut until = pin!(level.until(|now| now > 0));
        for waker in [&one, &two] {
            let mut cx = Context::from_waker(waker);
            assert!(until.as_mut().poll(&mut cx).is_pending());
        }
        level.change(|_| 1);
        assert_eq!((first.times(), second.times()), (0, 1));
    }

    #[test]
    fn who_no_longer_waits_leaves_nothing_behind() {
        let level = AtomicWatch::default();
        let (woken, waker) = woken();
        let mut cx = Context::from_waker(&waker);
        let mut many: Vec<_> = (0..1_000).map(|_| level.until(|now| now > 0)).collect();
        for until in &mut many {
            assert!(Pin::new(until).poll(&mut cx).is_pending());
        }
        assert_eq!(waiting(&level), 1_000);
        many.truncate(10);
        assert_eq!(waiting(&level), 10);
        level.change(|_| 1);
        assert_eq!(woken.times(), 10);
        drop(many);
        let kept = |list: &List| list.lock().wakers.capacity();
        assert!(level.waiting.iter().all(|list| kept(list) <= KEPT));
    }

    #[test]
    fn a_change_between_the_look_and_the_entry_is_not_missed() {
        let level = AtomicWatch::default();
        let looked = Cell::new(false);
        let mut until = pin!(level.until(|now| {
            if !looked.replace(true) {
                level.change(|_| 1);
            }
            now > 0
        }));
        let mut cx = Context::from_waker(Waker::noop());
        // The change has woken nobody: now or never.
        assert!(until.as_mut().poll(&mut cx).is_ready());
    }
}
