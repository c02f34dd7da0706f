//! Whether a claimer that was told takes its connection.

use std::time::Duration;

use tokio::time::sleep;

use super::Served;
use super::claimer::{Claimer, Culprit};
use crate::deadline::{Deadline, Elapsed};

/// What happened to a claimer after it was told.
pub(super) enum Taken {
    Served(Served),
    /// It died before it had the connection.
    Gone,
    /// It did not take the connection in time, and cannot any more.
    Hung(Option<Culprit>),
}

/// A claimer has its own time to take the connection: a claim just before the deadline is valid.
pub(super) async fn taken(claimer: Claimer) -> Taken {
    let deadline = Deadline::after(READ_BUDGET);
    match claimer {
        Claimer::Answered(told) => {
            let process = told.process();
            match deadline.bound(told.until_read()).await {
                Ok(Ok(stream)) => Taken::Served(Served::claimed(stream)),
                Ok(Err(_)) => Taken::Gone,
                Err(_) => Taken::Hung(process.map(Culprit::Process)),
            }
        }
        Claimer::Promised(promise) => {
            let tunnel = promise.tunnel();
            match deadline.bound(promise.until_taken()).await {
                Ok(Some(stream)) => Taken::Served(Served::tunnelled(*stream)),
                Ok(None) => Taken::Gone,
                Err(_) => Taken::Hung(Some(Culprit::Tunnel(tunnel))),
            }
        }
        Claimer::Worker(..) | Claimer::Network(_) | Claimer::Handler(_) => Taken::Gone,
    }
}

/// How many workers were told of one connection, and have left without it.
#[derive(Default)]
pub(super) struct Departures(u32);

impl Departures {
    /// Another one has left. If many have, the connection waits for a moment before it waits for the next one: maybe
    /// the workers do not want it, and it would go round as fast as they come. It keeps its place.
    ///
    /// # Errors
    ///
    /// The time is up, which the connection does not notice while there is always another worker.
    pub(super) async fn noted(&mut self, deadline: Deadline) -> Result<(), Elapsed> {
        self.0 = self.0.saturating_add(1);
        if self.0 > MANY {
            sleep(MOMENT).await;
        }
        match deadline.has_passed() {
            true => Err(Elapsed),
            false => Ok(()),
        }
    }
}

/// More workers than usually die at the same time.
const MANY: u32 = 16;
const MOMENT: Duration = Duration::from_millis(100);

/// How long a worker may take to read its `OK`, or to confirm it, before it counts as hung. It is less than
/// `timeouts.backend`, so that another worker can still take the connection.
pub(super) const READ_BUDGET: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::super::{ActiveBackend, BackendSettings, Surroundings, To, Unserved};
    use super::*;
    use crate::backend::network_worker::{NetworkWorker, Told, WorkerHost};
    use crate::drain::Drain;
    use crate::facts::Facts;
    use crate::id::Id;
    use crate::limits::Gauge;
    use crate::rendezvous::Rendezvous;

    fn backend() -> ActiveBackend {
        let settings = BackendSettings::new("app", To::Gate);
        let around = Surroundings {
            unacknowledged: None,
            half_close: None,
            drain: &Drain::default(),
            own: &Arc::default(),
            journal: &Arc::default(),
            census: &Arc::default(),
        };
        ActiveBackend::new(&settings, None, &around)
    }

    fn worker(host: &Arc<WorkerHost>) -> (Claimer, oneshot::Receiver<Told>) {
        let (told, telling) = oneshot::channel();
        let worker = NetworkWorker {
            host: Arc::clone(host),
            backend: "app".into(),
            told,
            _slot: Gauge::new(None).take().expect("unlimited"),
        };
        (Claimer::Network(Box::new(worker)), telling)
    }

    fn host() -> Arc<WorkerHost> {
        Arc::new(WorkerHost {
            tunnel: Id::random(),
            listener: "workers".into(),
            identity: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_go_from_one_hung_worker_to_the_next_after_its_time() {
        let rendezvous = Rendezvous::confirmed_by(Claimer::tell);
        let mut workers = Vec::new();
        for _ in 0..3 {
            let (claimer, telling) = worker(&host());
            rendezvous.accept("app", claimer);
            workers.push(telling);
        }
        let (backend, facts) = (backend(), Arc::new(Facts::new("app")));
        // The first one costs it two seconds, which it gets back. In the third second its time is over.
        let deadline = Deadline::after(Duration::from_secs(1));
        let obtained = backend.obtain(&facts, deadline, &rendezvous, pending());
        assert!(matches!(obtained.await, Err(Unserved::Expired(_))));
        let told = workers.iter_mut().map(|it| it.try_recv().is_ok());
        assert_eq!(told.collect::<Vec<_>>(), [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_no_worker_wants_does_not_go_round_as_fast_as_they_come() {
        let rendezvous = Rendezvous::confirmed_by(Claimer::tell);
        let host = host();
        let told = Cell::new(0);
        let leaving = async {
            while told.get() < 1000 {
                let (claimer, telling) = worker(&host);
                rendezvous.accept("app", claimer);
                drop(telling.await);
                told.set(told.get() + 1);
            }
        };
        let (backend, facts) = (backend(), Arc::new(Facts::new("app")));
        let deadline = Deadline::after(Duration::from_secs(1));
        tokio::select! {
            obtained = backend.obtain(&facts, deadline, &rendezvous, pending()) => {
                assert!(matches!(obtained, Err(Unserved::Expired(_))));
            }
            () = leaving => panic!("it has been offered a thousand times"),
        }
        assert!((20..40).contains(&told.get()), "{}", told.get());
    }
}
