//! Sequences of operations on the rendezvous. Each answer is compared with that of a simple model.

mod model;
mod operation;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use uuid::Uuid;

use self::model::Model;
use self::operation::{Answer, BACKENDS, Life, Operation, WatcherEvent};
use crate::facts::Facts;
use crate::id::Id;
use crate::rendezvous::{Accepted, Event, Rendezvous, Ticket};

/// Performs the operations of the input, two bytes each, and then closes everything.
///
/// # Panics
///
/// The rendezvous and the model disagree.
pub fn rendezvous(data: &[u8]) {
    let mut model = Model::default();
    let mut world = World::new();
    for bytes in data.chunks_exact(2).take(MOST_OPERATIONS) {
        if let Some(operation) = model.decode(bytes[0], bytes[1]) {
            compare(&mut model, &mut world, &operation);
        }
    }
    for operation in model.closing() {
        compare(&mut model, &mut world, &operation);
    }
    assert!(world.rendezvous.is_empty());
    let ledger = world.ledger.borrow();
    for claimer in 0..world.lives.len() {
        let told = ledger.told.iter().filter(|(told, _)| *told == claimer);
        assert!(told.count() <= 1, "claimer {claimer} was told twice");
        assert!(ledger.is_dropped(claimer), "claimer {claimer} is held");
    }
}

fn compare(model: &mut Model, world: &mut World, operation: &Operation) {
    let expected = model.perform(operation);
    let found = world.perform(operation);
    assert_eq!(found, expected, "{operation:?}");
    let ledger = world.ledger.borrow();
    assert_eq!(ledger.told, model.told, "who was told what: {operation:?}");
    let dropped: Vec<usize> = (0..world.lives.len())
        .filter(|claimer| ledger.is_dropped(*claimer))
        .collect();
    assert_eq!(dropped, model.ended(), "the claimers: {operation:?}");
    assert_eq!(world.rendezvous.len(), model.len(), "{operation:?}");
    let woken: Vec<usize> = world.wakes.iter().map(|wakes| wakes.count()).collect();
    assert_eq!(woken, model.woken, "the tasks: {operation:?}");
}

/// The rendezvous and its users.
struct World {
    rendezvous: Rendezvous<Claimer>,
    ledger: Rc<RefCell<Ledger>>,
    /// The states of all claimers.
    lives: Vec<Rc<Cell<Life>>>,
    tickets: Vec<Option<Ticket<Claimer>>>,
    /// Two for each ticket, for two tasks that poll it in turn.
    wakes: Vec<Arc<WakeCounter>>,
    watchers: Vec<Option<mpsc::Receiver<Event>>>,
}

impl World {
    fn new() -> Self {
        Self {
            rendezvous: Rendezvous::confirmed_by(Claimer::tell),
            ledger: Rc::default(),
            lives: Vec::new(),
            tickets: Vec::new(),
            wakes: Vec::new(),
            watchers: Vec::new(),
        }
    }

    fn perform(&mut self, operation: &Operation) -> Answer {
        match *operation {
            Operation::Announce { backend, id } => {
                let mut facts = Facts::new(BACKENDS[backend]);
                facts.id = id_of(id);
                self.tickets.push(Some(self.rendezvous.announce(facts)));
                self.wakes.extend([Arc::default(), Arc::default()]);
                Answer::Done
            }
            Operation::Claim { id, life } => {
                let claimer = self.claimer(0, life);
                match self.rendezvous.claim(id_of(id), claimer) {
                    Ok(()) => Answer::Told,
                    Err(unclaimed) => Answer::GivenBack(unclaimed.into_stream().number),
                }
            }
            Operation::Accept { backend, life } => self.accept(backend, life),
            Operation::Die { claimer } => {
                self.lives[claimer].set(Life::Dead);
                Answer::Done
            }
            Operation::Prune => {
                self.rendezvous
                    .prune(|claimer| claimer.life.get() == Life::Alive);
                Answer::Done
            }
            Operation::Poll { ticket, task } => self.poll(ticket, task),
            Operation::Withdraw { ticket, why } => {
                let claimer = self.take(ticket).withdraw(why);
                Answer::Withdrawn(claimer.map(|claimer| claimer.number))
            }
            Operation::Drop { ticket } => {
                drop(self.take(ticket));
                Answer::Done
            }
            Operation::Watch { backend, capacity } => {
                let (waiting, events) = self.rendezvous.watch(BACKENDS[backend], capacity);
                self.watchers.push(Some(events));
                Answer::Waiting(waiting.iter().map(|facts| number_of(facts.id)).collect())
            }
            Operation::Read { watcher, most } => {
                let events = self.watchers[watcher].as_mut();
                Answer::Events(read(events.expect("it has not left"), most))
            }
            Operation::Leave { watcher } => {
                self.watchers[watcher] = None;
                Answer::Done
            }
            Operation::Drain => {
                let mut claimers = self.rendezvous.drain();
                // The order between backends is not specified.
                claimers.sort_by_key(|claimer| claimer.backend);
                Answer::Drained(claimers.iter().map(|claimer| claimer.number).collect())
            }
        }
    }

    fn accept(&mut self, backend: usize, life: Life) -> Answer {
        let claimer = self.claimer(backend, life);
        match self.rendezvous.accept(BACKENDS[backend], claimer) {
            Accepted::Matched(_) => Answer::Told,
            Accepted::Queued => Answer::Queued,
            Accepted::Gone(claimer) => Answer::GivenBack(claimer.number),
            Accepted::Drained(claimer) => Answer::Draining(claimer.number),
        }
    }

    fn poll(&mut self, ticket: usize, task: usize) -> Answer {
        let waker = Waker::from(Arc::clone(&self.wakes[2 * ticket + task]));
        let ticket = self.tickets[ticket].as_mut().expect("it is held");
        match pin!(ticket.wait()).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Answer::Pending,
            Poll::Ready(Ok(claimer)) => Answer::Redeemed(claimer.number),
            Poll::Ready(Err(why)) => Answer::Unredeemed(why),
        }
    }

    fn take(&mut self, ticket: usize) -> Ticket<Claimer> {
        self.tickets[ticket].take().expect("it is held")
    }

    fn claimer(&mut self, backend: usize, life: Life) -> Claimer {
        let life = Rc::new(Cell::new(life));
        self.lives.push(Rc::clone(&life));
        Claimer {
            number: self.lives.len() - 1,
            backend,
            life,
            ledger: Rc::clone(&self.ledger),
        }
    }
}

fn read(events: &mut mpsc::Receiver<Event>, most: usize) -> Vec<WatcherEvent> {
    let mut heard = Vec::new();
    while heard.len() < most {
        heard.push(match events.try_recv() {
            Ok(Event::Offer(facts)) => WatcherEvent::Offer(number_of(facts.id)),
            Ok(Event::Gone(id, why)) => WatcherEvent::Gone(number_of(id), why),
            Err(TryRecvError::Empty) => WatcherEvent::Nothing,
            Err(TryRecvError::Disconnected) => WatcherEvent::End,
        });
        if let Some(WatcherEvent::Nothing | WatcherEvent::End) = heard.last() {
            break;
        }
    }
    heard
}

fn id_of(number: usize) -> Id {
    Id::from(Uuid::from_u128(number as u128))
}

fn number_of(id: Id) -> usize {
    Uuid::from(id).as_u128() as usize
}

struct Claimer {
    number: usize,
    /// The backend for which it waits, if it does.
    backend: usize,
    life: Rc<Cell<Life>>,
    ledger: Rc<RefCell<Ledger>>,
}

impl Claimer {
    fn tell(self, facts: &Facts) -> Result<Self, Self> {
        if self.life.get() == Life::Dead {
            return Err(self);
        }
        let told = (self.number, number_of(facts.id));
        self.ledger.borrow_mut().told.push(told);
        Ok(self)
    }
}

impl Drop for Claimer {
    fn drop(&mut self) {
        self.ledger.borrow_mut().dropped.push(self.number);
    }
}

/// The history of the claimers.
#[derive(Default)]
struct Ledger {
    /// Each claimer that was told, with the id.
    told: Vec<(usize, usize)>,
    dropped: Vec<usize>,
}

impl Ledger {
    fn is_dropped(&self, claimer: usize) -> bool {
        self.dropped.contains(&claimer)
    }
}

/// Counts how often a task was woken.
#[derive(Default)]
struct WakeCounter(AtomicUsize);

impl WakeCounter {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Longer programs find nothing that these do not, and each comparison takes time.
const MOST_OPERATIONS: usize = 256;
