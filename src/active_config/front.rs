//! What is known of one front of a `[[join]]`, from all threads together.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::address::Address;

/// One front of a join.
#[derive(Debug)]
pub(crate) struct ActiveFront {
    pub address: Address,
    /// Open tunnels.
    pub tunnels: Tally,
    /// Of these, the ones that take further offers.
    pub usable: Tally,
    /// Offers without an answer.
    pub offers: Tally,
    /// Open connections that it has given us.
    pub open: Tally,
    /// All connections that it has given us.
    given: AtomicU64,
    said: Mutex<Said>,
}

/// What keeps us from a front.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: TroubleKind,
    /// For the log and for `vestibule status`.
    pub what: String,
}

/// Threads meet one event in different forms, which have the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// It drains, has closed the tunnel, or does not answer.
    Away,
    Name,
    Exhausted,
    OurCertificate,
    ItsCertificate,
    NoTls,
    Protocol,
    Busy,
    /// It refuses the offer for the reason in `what`.
    Offer,
}

/// How it is with a front.
#[derive(Clone, Debug)]
pub(crate) struct FrontStatus {
    pub state: FrontState,
    pub since: SystemTime,
}

#[derive(Clone, Debug)]
pub(crate) enum FrontState {
    /// No attempt has ended yet.
    Connecting,
    Joined,
    Failing(String),
}

/// What the log has said, and has yet to say.
#[derive(Debug)]
struct Said {
    status: FrontStatus,
    /// The threads that have trouble.
    troubled: BTreeSet<usize>,
    /// Since we were joined, and when each was said.
    told: Vec<(Trouble, Instant)>,
}

impl ActiveFront {
    pub(crate) fn new(address: &Address) -> Self {
        Self {
            address: address.clone(),
            tunnels: Tally::default(),
            usable: Tally::default(),
            offers: Tally::default(),
            open: Tally::default(),
            given: AtomicU64::new(0),
            said: Mutex::new(Said {
                status: FrontStatus {
                    state: FrontState::Connecting,
                    since: SystemTime::now(),
                },
                troubled: BTreeSet::new(),
                told: Vec::new(),
            }),
        }
    }

    /// A thread has no trouble with the front. Calls `say` with whether that is news: it is when the last thread has
    /// none. The threads say it one after the other, so that the news comes before what repeats it.
    pub(crate) fn joined(&self, thread: usize, say: impl FnOnce(bool)) {
        let mut said = self.said();
        said.troubled.remove(&thread);
        let is_news = said.troubled.is_empty() && !said.status.is_joined();
        if is_news {
            said.turn(FrontState::Joined);
            said.told.clear();
        }
        say(is_news);
    }

    pub(crate) fn is_troubled(&self, thread: usize) -> bool {
        self.said().troubled.contains(&thread)
    }

    /// A thread has trouble with the front. Calls `say` with whether the log has to say so: no thread has said it since
    /// they were joined, or another trouble was between them for a while.
    pub(crate) fn troubled(&self, thread: usize, trouble: Trouble, say: impl FnOnce(bool)) {
        let mut said = self.said();
        let is_current = match &said.status.state {
            FrontState::Failing(_) => said.told.last().is_some_and(|(it, _)| it.is(&trouble)),
            FrontState::Connecting | FrontState::Joined => false,
        };
        let before = said.told.iter().position(|(it, _)| it.is(&trouble));
        let is_fresh = before.is_some_and(|at| said.told[at].1.elapsed() < QUIET);
        let is_news = !is_current && !is_fresh;
        if is_news {
            before.map(|at| said.told.remove(at));
            if said.told.len() >= MOST_TOLD {
                said.told.remove(0);
            }
            said.told.push((trouble.clone(), Instant::now()));
            said.turn(FrontState::Failing(trouble.what.clone()));
        }
        if is_current {
            // Another form of it may tell more.
            said.status.state = FrontState::Failing(trouble.what);
        }
        said.troubled.insert(thread);
        say(is_news);
    }

    pub(crate) fn status(&self) -> FrontStatus {
        self.said().status.clone()
    }

    /// It has given us a connection, which is open until the result is dropped.
    pub(crate) fn give(&self) -> OneMore {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.open.one_more()
    }

    /// The number of connections that it has given us since the join is there.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrontStatus {
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.state, FrontState::Joined)
    }
}

impl Said {
    fn turn(&mut self, state: FrontState) {
        self.status = FrontStatus {
            state,
            since: SystemTime::now(),
        };
    }
}

impl Trouble {
    pub(crate) fn new(kind: TroubleKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { kind, what }
    }

    /// Whether it is the same event.
    fn is(&self, other: &Self) -> bool {
        let is_by_reason = self.kind == TroubleKind::Offer;
        self.kind == other.kind && (!is_by_reason || self.what == other.what)
    }
}

/// A number of things that exist now, on all threads.
#[derive(Debug, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

/// Counts one until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct OneMore(Arc<AtomicUsize>);

impl Tally {
    pub(crate) fn one_more(&self) -> OneMore {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneMore(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a trouble that alternates with another one is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// A front may refuse offers for many reasons.
const MOST_TOLD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> ActiveFront {
        ActiveFront::new(&"front.example:1".parse().expect("an address"))
    }

    impl ActiveFront {
        fn fails(&self, thread: usize, kind: TroubleKind, what: &str) -> bool {
            let mut news = false;
            self.troubled(thread, Trouble::new(kind, what), |it| news = it);
            news
        }

        fn joins(&self, thread: usize) -> bool {
            let mut news = false;
            self.joined(thread, |it| news = it);
            news
        }
    }

    use TroubleKind::{Away, Busy, Offer, OurCertificate};

    #[tokio::test(start_paused = true)]
    async fn a_restart_of_a_front_is_one_warning_and_one_word_when_all_threads_are_back() {
        let front = front();
        assert!(front.joins(0));
        assert!(!front.joins(1));
        assert!(front.fails(0, Away, "it has closed the tunnel"));
        assert!(!front.fails(1, Away, "it drains"));
        assert!(!front.fails(0, Away, "cannot connect"));
        assert!(!front.joins(0));
        assert!(matches!(front.status().state, FrontState::Failing(_)));
        assert!(!front.fails(1, Away, "cannot connect"));
        assert!(front.joins(1));
        assert!(front.status().is_joined());
        // The next restart is another event.
        assert!(front.fails(1, Away, "it has closed the tunnel"));
        assert!(front.joins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn another_trouble_is_news_and_two_that_alternate_are_said_once_a_minute() {
        let front = front();
        assert!(front.fails(0, OurCertificate, "UnknownCA"));
        assert!(!front.fails(1, OurCertificate, "HTTP/2 cannot begin"));
        assert!(front.fails(1, Away, "cannot connect"));
        for _ in 0..5 {
            assert!(!front.fails(0, OurCertificate, "UnknownCA"));
            assert!(!front.fails(1, Away, "cannot connect"));
        }
        assert!(front.fails(0, Offer, "it has no backend \"a\""));
        assert!(front.fails(0, Offer, "it does not let this worker"));
        assert!(front.fails(0, Busy, "no room"));
        tokio::time::advance(QUIET).await;
        assert!(front.fails(1, Away, "cannot connect"));
        assert!(!front.fails(1, Away, "cannot connect"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_that_invents_reasons_is_remembered_within_bounds() {
        let front = front();
        for number in 0..1000 {
            front.fails(0, Offer, &number.to_string());
        }
        assert_eq!(front.said().told.len(), MOST_TOLD);
    }
}
