//! A record stream as plain data, so that a connection can outlive its process.
//!
//! Compiled for tests and fuzzing alone until a process hands its connections to the next one.

use serde::{Deserialize, Serialize};

use super::cipher::{Cipher, Suite, Version};
use super::inbound::{Inbound, Message, Patience};
use super::keys::{Keys, Material, cipher_of};
use super::outbound::Outbound;
use super::{MOST_HELD, RecordStream, Wire};
use crate::relay::drive;

/// Everything of a [`RecordStream`] but its socket.
///
/// It holds the keys of a live connection: whoever has it can read and forge what is said.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    inbound: KeysState,
    message: Message,
    patience: Patience,
    outbound: KeysState,
    limit: u64,
    up: drive::State,
    down: drive::State,
    held: Vec<u8>,
    opened: Vec<u8>,
    sealed: Vec<u8>,
    owed: usize,
    updating: bool,
    asked: bool,
}

#[derive(Serialize, Deserialize)]
struct KeysState {
    suite: Suite,
    material: Material,
    sequence: u64,
}

impl<IO: Wire> RecordStream<IO> {
    /// Takes the stream apart, between two records or in the middle of one.
    pub(crate) fn export(self) -> (IO, State) {
        let state = State {
            inbound: self.inbound.keys.export(),
            message: self.inbound.message,
            patience: self.inbound.patience,
            outbound: self.outbound.keys.export(),
            limit: self.outbound.limit,
            up: self.up,
            down: self.down,
            held: self.held,
            opened: self.opened.as_slice().to_vec(),
            sealed: self.sealed.as_slice().to_vec(),
            owed: self.owed,
            updating: self.updating,
            asked: self.asked,
        };
        (self.io, state)
    }

    /// Goes on with an exported stream; `None` when the state does not fit together.
    pub(crate) fn import(io: IO, state: State) -> Option<Self> {
        if state.held.len() > MOST_HELD {
            return None;
        }
        Some(Self {
            io,
            inbound: Inbound {
                keys: Keys::import(state.inbound)?,
                message: state.message,
                patience: state.patience,
            },
            outbound: Outbound {
                keys: Keys::import(state.outbound)?,
                limit: state.limit,
            },
            up: state.up,
            down: state.down,
            held: state.held,
            opened: state.opened.into(),
            sealed: state.sealed.into(),
            owed: state.owed,
            updating: state.updating,
            asked: state.asked,
        })
    }
}

impl Keys {
    fn export(self) -> KeysState {
        KeysState {
            suite: self.suite,
            sequence: self.cipher.sequence(),
            material: self.material,
        }
    }

    fn import(state: KeysState) -> Option<Self> {
        let KeysState {
            suite,
            material,
            sequence,
        } = state;
        let cipher = match (suite.version, &material) {
            (Version::Tls13, Material::Traffic(secret)) => cipher_of(suite, secret, sequence),
            (Version::Tls12, Material::Fixed { key, iv }) => {
                Cipher::new(suite, key, iv.clone(), sequence)
            }
            _ => None,
        };
        Some(Self {
            cipher: cipher?,
            suite,
            material,
        })
    }
}
