//! A record layer as plain data, so that a connection can outlive its process.
//!
//! This is compiled only for tests and fuzzing, until processes can hand their connections over.

use serde::{Deserialize, Serialize};

use super::Layer;
use super::cipher::{Cipher, Suite, Version};
use super::inbound::{Inbound, Message, Patience, Role};
use super::keys::{Keys, Material, cipher_of};
use super::outbound::Outbound;

/// Everything in a [`Layer`] except the keeper of tickets: later tickets are not stored.
///
/// It contains the keys of an open connection. With them, its data can be read and forged.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    role: Role,
    inbound: KeysState,
    message: Message,
    patience: Patience,
    outbound: KeysState,
    limit: u64,
    updating: bool,
    asked: bool,
    is_mute: bool,
}

#[derive(Serialize, Deserialize)]
struct KeysState {
    suite: Suite,
    material: Material,
    sequence: u64,
}

impl Layer {
    /// Takes the layer apart, between two records.
    pub(crate) fn export(self) -> State {
        State {
            role: self.inbound.role,
            inbound: self.inbound.keys.export(),
            message: self.inbound.message,
            patience: self.inbound.patience,
            outbound: self.outbound.keys.export(),
            limit: self.outbound.limit,
            updating: self.updating,
            asked: self.asked,
            is_mute: self.is_mute,
        }
    }

    /// Continues an exported layer; `None` if the state is inconsistent.
    pub(crate) fn import(state: State) -> Option<Self> {
        Some(Self {
            inbound: Inbound::resumed(
                state.role,
                Keys::import(state.inbound)?,
                state.message,
                state.patience,
            ),
            outbound: Outbound {
                keys: Keys::import(state.outbound)?,
                limit: state.limit,
            },
            updating: state.updating,
            asked: state.asked,
            is_mute: state.is_mute,
            // After a fatal alert there is nothing to continue.
            given_up: None,
            is_over: false,
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
