//! Compares what clients and workers have seen with the model.

use super::model::{self, Fate, Model, State};
use super::step::{PLACES, Step, asked};
use super::world::{Worker, World};
use crate::backend::Unserved;
use crate::deadline::Scope;

pub(super) fn check(model: &Model, world: &mut World, step: Step) {
    for client in 0..model.clients.len() {
        check_client(model, world, client, step);
    }
    for worker in 0..model.workers.len() {
        check_worker(model, world, worker, step);
    }
    let state = &world.state;
    assert_eq!(state.rendezvous.len(), model.waiting(), "{step:?}: waiting");
    let (claimers, _) = state.rendezvous.clients(|_| true);
    assert_eq!(claimers, model.places(), "{step:?}: the queues");
    let free: Vec<_> = std::iter::from_fn(|| state.gate_places.take()).collect();
    assert_eq!(free.len(), PLACES - model.places(), "{step:?}: free places");
}

fn check_client(model: &Model, world: &World, client: usize, step: Step) {
    let expected = &model.clients[client];
    let saw = world.clients[client].saw.lock().expect("no panic");
    let about = || format!("{step:?}: client {client}, {:?}: {saw:?}", expected.fate);
    let unserved = match expected.fate {
        Fate::Waiting | Fate::Promised { .. } | Fate::Undecided | Fate::Served { .. } => None,
        Fate::Expired => Some(Unserved::Expired(Scope::Phase)),
        Fate::Drained => Some(Unserved::Drained),
        Fate::Left => return,
    };
    assert_eq!(saw.unserved, unserved, "{}", about());
    let Fate::Served { worker } = expected.fate else {
        assert!(!saw.is_served && saw.bytes.is_empty(), "{}", about());
        return;
    };
    assert!(saw.is_served, "{}", about());
    assert_eq!(saw.bytes, expected.reply, "{}", about());
    match model.workers[worker].tunnel {
        Some(_) => assert_eq!(saw.ended, expected.ended, "{}", about()),
        None => assert_eq!(saw.ended.is_some(), expected.ended.is_some(), "{}", about()),
    }
}

fn check_worker(model: &Model, world: &mut World, worker: usize, step: Step) {
    let expected = &model.workers[worker];
    let told = world.told(worker);
    let about = format!("{step:?}: worker {worker}, {:?}", expected.state);
    let payload = match (expected.told, expected.has_taken) {
        (Some(client), true) => asked(client),
        _ => Vec::new(),
    };
    let is_served = matches!(expected.state, State::Has(_));
    match &mut world.workers[worker] {
        Worker::InTunnel(stream) => stream.heard(|heard| {
            let is_deaf = is_deaf(model, expected);
            let about = format!("{about}: {heard:?}");
            if told.is_some() || (!is_deaf && expected.state != State::Gone) {
                assert_eq!(told, expected.told, "{about}");
            }
            assert!(payload.starts_with(&heard.bytes), "{about}");
            assert!(is_deaf || !is_served || payload == heard.bytes, "{about}");
            let is_over = heard.refusal.is_some() || heard.ended.is_some();
            let shall_be = matches!(expected.state, State::Refused(_) | State::Gone);
            assert!(is_deaf || is_over == shall_be, "{about}");
            if let (State::Refused(refusal), false) = (expected.state, is_deaf) {
                assert_eq!(heard.refusal.as_deref(), Some(refusal), "{about}");
            }
        }),
        Worker::Local(local) => {
            let is_told = matches!(expected.state, State::Told(_));
            if is_told || told.is_some() {
                assert_eq!(told, expected.told, "{about}");
            }
            let bytes = local.bytes();
            assert!(payload.starts_with(bytes), "{about}: {bytes:?}");
            assert!(!is_served || payload == bytes, "{about}: {bytes:?}");
        }
    }
}

/// Its tunnel is frozen.
fn is_deaf(model: &Model, worker: &model::Worker) -> bool {
    let tunnel = worker.tunnel.map(|tunnel| &model.tunnels[tunnel]);
    tunnel.is_some_and(|tunnel| tunnel.frozen_at.is_some())
}
