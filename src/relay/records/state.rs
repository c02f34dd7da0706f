//! The records of one side as plain data, without the socket.

use serde::{Deserialize, Serialize};

use super::Records;
use crate::record::{self, Layer, MOST_HELD};
use crate::wire::Wire;

/// Everything in [`Records`] except the socket. It contains the keys of an open connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    layer: record::Exported,
    held: Vec<u8>,
    sealed: Vec<u8>,
    owed: usize,
}

impl<IO: Wire> Records<IO> {
    /// Takes the side apart, between two records or in the middle of one.
    pub(crate) fn export(self) -> (IO, State) {
        let state = State {
            layer: self.layer.export(),
            held: self.held,
            sealed: self.sealed.as_slice().to_vec(),
            owed: self.owed,
        };
        (self.io, state)
    }

    /// Continues an exported side; `None` if the state is inconsistent.
    pub(crate) fn import(io: IO, state: State) -> Option<Self> {
        if state.held.len() > MOST_HELD {
            return None;
        }
        Some(Self {
            io,
            layer: Layer::import(state.layer)?,
            held: state.held,
            sealed: state.sealed.into(),
            owed: state.owed,
        })
    }
}
