//! One front: keeps tunnels to it with the offers that are to be outstanding there, and serves what they bring.

mod says;
mod tunnel;

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug};

use self::tunnel::Tunnel;
use super::backoff::{Backoff, Pause};
use super::dial::{Dialled, NoTunnel, dial};
use super::offers::{Refused, offer};
use super::told::Told;
use crate::active_config::{ActiveJoin, DIAL_BUDGET, TroubleKind};
use crate::client::Transport;
use crate::connection::{Arrival, accept, serve};
use crate::deadline::{Deadline, hurried};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;
use crate::tunnel::{Answer, CarrierError, OpenError};

/// A front of one join, on one thread.
pub(super) struct Front {
    state: Arc<ProxyState>,
    join: Arc<ActiveJoin>,
    /// Which of the join's fronts.
    number: usize,
    thread: usize,
    offers: usize,
    tunnels: BTreeMap<u64, Tunnel>,
    last_tunnel: u64,
    /// Notified when a tunnel takes no more offers.
    closed: Arc<Notify>,
    drivers: JoinSet<(u64, Result<(), CarrierError>)>,
    /// Offers without an answer. `None`: it was withdrawn.
    asked: JoinSet<Option<(u64, Result<Answer, OpenError>)>>,
    served: JoinSet<Outcome>,
    dialling: Option<Working<Result<Box<Dialled>, NoTunnel>>>,
    /// Dials in a row that have failed without a clear reason.
    unclear: u32,
    dial_pause: Pause,
    offer_pause: Pause,
    /// Withdraws all offers.
    withdrawal: CancellationToken,
    is_down: watch::Receiver<bool>,
    probe: Option<Working<bool>>,
    probing: Backoff,
}

type Working<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Event {
    Stopped,
    Dialled(Result<Box<Dialled>, NoTunnel>),
    Broken(u64, Result<(), CarrierError>),
    Answered(u64, Result<Answer, OpenError>),
    Served(Outcome),
    Probed(bool),
    /// Something may be possible now that was not.
    Again,
    /// Nothing has happened for a while.
    Quiet,
}

impl Front {
    pub(super) fn new(
        state: &Arc<ProxyState>,
        join: &Arc<ActiveJoin>,
        number: usize,
        (thread, offers): (usize, usize),
    ) -> Self {
        Self {
            state: Arc::clone(state),
            is_down: join.is_down.subscribe(),
            join: Arc::clone(join),
            number,
            thread,
            offers,
            unclear: 0,
            tunnels: BTreeMap::new(),
            last_tunnel: 0,
            closed: Arc::default(),
            drivers: JoinSet::new(),
            asked: JoinSet::new(),
            served: JoinSet::new(),
            dialling: None,
            dial_pause: Pause::default(),
            offer_pause: Pause::default(),
            withdrawal: CancellationToken::new(),
            probe: None,
            probing: Backoff::to(LONGEST_PROBE),
        }
    }

    /// Offers until `stop`, and then waits until the last connection has ended.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.arrange();
            match self.next(&stop).await {
                Event::Stopped => break,
                Event::Dialled(dialled) => self.dialled(dialled),
                Event::Broken(tunnel, result) => self.broken(tunnel, &result),
                Event::Answered(tunnel, answer) => self.answered(tunnel, answer),
                Event::Served(outcome) => self.served(outcome),
                Event::Probed(answers) => {
                    self.probe = None;
                    if answers {
                        self.says_up();
                    }
                }
                Event::Again => {}
                Event::Quiet => self.quiet(),
            }
        }
        self.finish().await;
    }

    async fn next(&mut self, stop: &CancellationToken) -> Event {
        let is_troubled = self.front().is_troubled(self.thread);
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stopped,
            // Before the answers: those of a tunnel that has failed are no news.
            Some(Ok((tunnel, result))) = self.drivers.join_next() => Event::Broken(tunnel, result),
            Some(answer) = self.asked.join_next() => match answer {
                Ok(Some((tunnel, answer))) => Event::Answered(tunnel, answer),
                Ok(None) | Err(_) => Event::Again,
            },
            Some(outcome) = self.served.join_next() => match outcome {
                Ok(outcome) => Event::Served(outcome),
                Err(_) => Event::Again,
            },
            dialled = finished(&mut self.dialling) => {
                self.dialling = None;
                Event::Dialled(dialled)
            }
            answers = finished(&mut self.probe) => Event::Probed(answers),
            // The sender is in the join.
            _ = self.is_down.changed() => Event::Again,
            () = self.dial_pause.passed() => Event::Again,
            () = self.offer_pause.passed() => Event::Again,
            () = self.closed.notified() => Event::Again,
            () = tokio::time::sleep(QUIET), if is_troubled => Event::Quiet,
        }
    }

    /// Offers what is to be offered, or looks after the local server if it does not answer.
    fn arrange(&mut self) {
        if !*self.is_down.borrow_and_update() {
            self.probe = None;
            self.probing.reset();
            return self.offer();
        }
        self.withdraw();
        if self.probe.is_none() {
            let (server, at) = (Arc::clone(&self.join.server), self.probing.step());
            self.probe = Some(Box::pin(async move {
                tokio::time::sleep_until(at).await;
                server.answers(Deadline::after(DIAL_BUDGET)).await
            }));
        }
    }

    fn offer(&mut self) {
        if self.offer_pause.is_on() {
            return;
        }
        self.retire_closed();
        while self.outstanding() < self.offers {
            let mut tunnels = self.tunnels.iter();
            let found = tunnels.find_map(|(id, it)| Some((*id, it, it.room()?.clone())));
            let Some((id, tunnel, requests)) = found else {
                return self.dial();
            };
            let held = (Arc::clone(&tunnel.offers), self.front().offers.one_more());
            let (withdrawn, join) = (self.withdrawal.clone(), Arc::clone(&self.join));
            self.asked.spawn(async move {
                let _held = held;
                let asked = requests.open(&join.settings.backend, offer());
                let answer = withdrawn.run_until_cancelled(asked).await?;
                Some((id, answer))
            });
        }
        // A tunnel that was needed for a while.
        for tunnel in self.tunnels.values_mut() {
            if tunnel.streams() == 0 {
                tunnel.retire();
            }
        }
    }

    /// The offers that the front may answer: a front that drains refuses those in the old tunnel.
    fn outstanding(&self) -> usize {
        let open = self.tunnels.values().filter(|it| it.requests.is_some());
        open.map(Tunnel::offers).sum()
    }

    fn dial(&mut self) {
        if self.dialling.is_none() && !self.dial_pause.is_on() {
            let unacknowledged = self.state.config.load().timeouts.relay.unacknowledged;
            let join = Arc::clone(&self.join);
            self.dialling = Some(Box::pin(dial(join, self.number, unacknowledged)));
        }
    }

    fn withdraw(&mut self) {
        std::mem::take(&mut self.withdrawal).cancel();
    }

    fn broken(&mut self, id: u64, result: &Result<(), CarrierError>) {
        let Some(mut tunnel) = self.tunnels.remove(&id) else {
            return;
        };
        if tunnel.requests.is_none() {
            // It was to end.
            return;
        }
        if tunnel.born.elapsed() >= STABLE {
            self.dial_pause.reset();
        }
        self.dial_pause.begin();
        tunnel.retire();
        match (tunnel.refusal.get(), result) {
            (Some(alert), _) => self.says_no_tunnel(&NoTunnel::refused(*alert)),
            (None, Ok(())) => self.says_lost("it has closed the tunnel"),
            (None, Err(error)) => self.says_lost(&format!("the tunnel has failed: {error}")),
        }
    }

    fn answered(&mut self, id: u64, answer: Result<Answer, OpenError>) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else {
            return;
        };
        let is_open = tunnel.requests.is_some();
        match answer {
            Ok(answer) => self.serve(id, answer),
            // What an old tunnel says does not hold for the next one.
            Err(_) if !is_open => {}
            Err(OpenError::Unprocessed) => self.retire(id),
            // If it is the tunnel that has failed, its driver says so.
            Err(OpenError::Failed(error)) => {
                debug!(%error, "offer failed");
                self.offer_pause.begin();
            }
            Err(OpenError::Refused(status, headers)) => {
                match Refused::of(status, &headers, &self.join.settings.backend) {
                    Refused::Draining => {
                        self.retire(id);
                        self.says_lost("it drains");
                    }
                    Refused::Busy => {
                        self.offer_pause.begin();
                        self.says_trouble(TroubleKind::Busy, "it has no room for more workers");
                    }
                    Refused::Wrong(why) => {
                        self.offer_pause.begin_with(SLOW);
                        self.says_trouble(TroubleKind::Offer, &why);
                    }
                }
            }
        }
    }

    fn retire_closed(&mut self) {
        let is_closed = |it: &Tunnel| it.requests.as_ref().is_some_and(|it| !it.is_open());
        let closed = self.tunnels.iter().filter(|(_, it)| is_closed(it));
        let closed: Vec<u64> = closed.map(|(id, _)| *id).collect();
        closed.into_iter().for_each(|id| self.retire(id));
    }

    /// Its streams may end by themselves. The next offers need another tunnel.
    fn retire(&mut self, id: u64) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.retire();
            self.dial_pause.begin();
        }
    }

    /// Serves a connection that the front has given us. It is ours when the local server has it; until then, a
    /// reset gives it back.
    fn serve(&mut self, id: u64, answer: Answer) {
        let Some(told) = Told::of(&answer.headers) else {
            self.offer_pause.begin_with(SLOW);
            return self.says_trouble(
                TroubleKind::Offer,
                "its answer has no facts of a connection; is it a Vestibule, with `workers = true` at its listener?",
            );
        };
        self.says_joined();
        self.dial_pause.reset();
        let latest = self.state.config.load();
        let arrival = Arrival {
            config: Arc::new(self.join.config(latest.timeouts)),
            listener: Arc::clone(&self.join.listener),
            transport: Transport::Tunnel(Box::new(answer.into_offer())),
            peer: told.peer,
            local: told.local.as_ref(),
            stream: None,
        };
        let Ok(mut accepted) = accept(arrival, &self.state) else {
            return self.full();
        };
        accepted.record.told(told.tls, told.identity);
        let span = accepted.record.span();
        span.in_scope(|| debug!(id_at_front = told.id, front = %self.address(), "offered"));
        let held = self.tunnels.get(&id).map(|it| Arc::clone(&it.connections));
        let held = (held, self.front().give());
        let state = Arc::clone(&self.state);
        let served = async move {
            let _held = held;
            serve(accepted, state).await
        };
        self.served.spawn(served.instrument(span));
    }

    /// There was no room for a connection, which the front gives to another worker. It must not come back at once.
    fn full(&mut self) {
        self.withdraw();
        self.offer_pause.begin();
    }

    fn served(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::BackendRefused | Outcome::BackendTimeout => self.says_down(),
            Outcome::Shed => self.full(),
            _ if !self.offer_pause.is_on() => self.offer_pause.reset(),
            _ => {}
        }
    }

    /// Withdraws the offers, and waits for the connections. Then the tunnels end with GOAWAY.
    async fn finish(mut self) {
        self.withdraw();
        self.dialling = None;
        self.tunnels.values_mut().for_each(Tunnel::retire);
        // A connection that came at the same time is dropped here, and goes back.
        while self.asked.join_next().await.is_some() {}
        while self.served.join_next().await.is_some() {}
        let last_words = async { while self.drivers.join_next().await.is_some() {} };
        // After a reload that removes the join, nothing else bounds the wait for a front that does not read.
        let budget = Deadline::after(self.state.config.load().drain);
        let is_late = budget.bound(self.state.drain.time_is_up());
        hurried(last_words, is_late).await;
    }
}

/// The result of work in progress. Never ready without any.
async fn finished<T>(work: &mut Option<Working<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// After a refusal that only a change of a configuration ends.
const SLOW: Duration = Duration::from_secs(10);
/// A tunnel that has lasted as long was a success.
const STABLE: Duration = Duration::from_secs(10);
/// A front that refuses an offer does so sooner.
const QUIET: Duration = Duration::from_secs(5);
/// A local server that is back should not wait for long.
const LONGEST_PROBE: Duration = Duration::from_secs(2);
