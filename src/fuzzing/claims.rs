//! Workers in tunnels and local ones compete for connections. Each step is compared with what a model expects.
//!
//! ```text
//! input ─► Model ─ Step ─► clients ─ obtain ─► rendezvous ◄─ Workers ◄─ Carried ══ pipe ══ a tunnel of workers
//!            └── check ◄── what clients and workers have seen      ◄─ local workers ══ socket pairs
//! ```
//!
//! Time passes only as the steps say. No step happens while a deadline passes, so what comes first is always known.

mod check;
mod model;
mod site;
mod step;
mod tunnel;
mod world;

use tokio::runtime::{Builder, Runtime};

use self::check::check;
use self::model::Model;
use self::step::Step;
use self::world::World;

/// Performs the steps of the input, two bytes each, and then closes everything.
///
/// # Panics
///
/// What clients and workers have seen is not what the model expects.
pub fn claims(data: &[u8]) {
    RUNTIME.with(|runtime| runtime.block_on(perform(data)));
}

async fn perform(data: &[u8]) {
    let mut model = Model::default();
    let mut world = World::new();
    for bytes in data.chunks_exact(2).take(MOST_STEPS) {
        let Some(step) = model.decode(bytes[0], bytes[1]) else {
            continue;
        };
        let step = Some(step);
        for step in [None, step] {
            let time = world.now() + MARGIN;
            until(&mut model, &mut world, time).await;
            let Some(step) = step.or_else(|| model.burial(world.now())) else {
                continue;
            };
            // What came due may have taken its subject away.
            if model.permits(&step) {
                run(&mut model, &mut world, step).await;
            }
        }
    }
    let silent = model.frozen().filter(|it| model.tunnels[*it].has_pulse);
    world.close(silent).await;
}

async fn run(model: &mut Model, world: &mut World, step: Step) {
    if let Step::Pass { time } = step {
        let time = world.now() + time;
        until(model, world, time + MARGIN).await;
        world.sleep_until(time).await;
    } else {
        model.perform(step, world.now());
        world.perform(step).await;
    }
    follow(model, world, step).await;
}

/// Lets everything happen that is due by then. What is due at nearly the same time is one step.
async fn until(model: &mut Model, world: &mut World, time: u64) {
    while let Some((first, _)) = model.next_due().filter(|(at, _)| *at <= time) {
        let mut last = first;
        while let Some((at, due)) = model.next_due().filter(|(at, _)| *at <= last + MARGIN) {
            last = at;
            model.pass(due, at);
        }
        world.sleep_until(last + LATE).await;
        follow(model, world, Step::Pass { time: 0 }).await;
    }
}

/// Compares, and lets all new workers but one take their connections: at most one may hang at a time.
async fn follow(model: &mut Model, world: &mut World, step: Step) {
    world.settle().await;
    model.adopt(|worker| world.told(worker));
    check(model, world, step);
    for step in model.settling() {
        model.perform(step, world.now());
        world.perform(step).await;
        world.settle().await;
        check(model, world, step);
    }
}

/// Longer programs find nothing that these do not, and each step takes time.
const MOST_STEPS: usize = 128;

/// In milliseconds of virtual time: more than a step takes.
const MARGIN: u64 = 400;
/// After a deadline, when it has certainly passed.
const LATE: u64 = 12;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
}
