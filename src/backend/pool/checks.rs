//! When addresses are checked: each has a task, and its own moment in the interval.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::{Answered, Pool, Target};

impl Pool {
    /// Checks all addresses, also those that are registered later, until the future is dropped. Each
    /// check takes at most `most`. Without a checker, it ends at once.
    pub(crate) async fn check_all(self: Arc<Self>, most: Option<Duration>) {
        if self.checker.is_none() {
            return;
        }
        let mut changes = self.registry.subscribe();
        // Dropping it aborts the tasks.
        let mut tasks = JoinSet::new();
        let mut checked: Vec<(Arc<Target>, AbortHandle)> = Vec::new();
        loop {
            changes.mark_unchanged();
            let targets = self.targets();
            checked.retain(|(target, task)| {
                let stays = targets.iter().any(|it| Arc::ptr_eq(it, target));
                if !stays {
                    task.abort();
                }
                stays
            });
            for target in targets.iter() {
                if !checked.iter().any(|(it, _)| Arc::ptr_eq(it, target)) {
                    let task = Arc::clone(&self).check_often(Arc::clone(target), most);
                    checked.push((Arc::clone(target), tasks.spawn(task)));
                }
            }
            drop(targets);
            while tasks.try_join_next().is_some() {}
            // Fails only without a sender, and the registry is one.
            let _ = changes.changed().await;
        }
    }

    /// Forgets what checks have said, when nobody checks with this pool any more. Otherwise connections that
    /// still wait here would wait for an answer that nobody looks for, and so would all connections to
    /// registered addresses, which the pool's successor has too: it may not check at all.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
        for target in self.targets().iter() {
            target.forget_verdicts();
            let found = target.found.get();
            found.iter().for_each(|it| it.forget_verdicts());
        }
        self.recovered.notify_waiters();
    }

    /// Records what a check says of the answer.
    pub(super) fn note_verdict(&self, target: &Target, verdict: Result<(), String>) {
        if target.checked(&self.judge, verdict) == Answered::Again {
            self.recovered.notify_waiters();
        }
        // The check had begun before.
        if self.is_retired.load(Ordering::SeqCst) {
            target.forget_verdicts();
        }
    }

    async fn check_often(self: Arc<Self>, target: Arc<Target>, most: Option<Duration>) {
        let Some(interval) = self.checker.as_ref().map(|it| it.settings.interval) else {
            return;
        };
        let mut next = Instant::now() + interval.min(SOON).mul_f64(random());
        loop {
            sleep_until(next).await;
            match target.place {
                Some(_) => self.check_one(&target, most).await,
                None => Arc::clone(&self).check_name(&target, most).await,
            }
            // Not a fixed step: addresses of several backends would meet again and again.
            next = (next + interval.mul_f64(0.9 + random() / 5.0)).max(Instant::now());
        }
    }

    /// Looks up a name, and checks all of its socket addresses at the same time.
    async fn check_name(self: Arc<Self>, name: &Arc<Target>, most: Option<Duration>) {
        let found = self.look_up(name, most.or(Some(SOON))).await;
        let mut checks = JoinSet::new();
        for target in found.iter().map(Arc::clone) {
            let pool = Arc::clone(&self);
            checks.spawn(async move { pool.check_one(&target, most).await });
        }
        while checks.join_next().await.is_some() {}
        self.judge_name(name, &found);
    }
}

/// A number from 0 to 1.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

/// The state of an address is known about a second after the start.
const SOON: Duration = Duration::from_secs(1);
