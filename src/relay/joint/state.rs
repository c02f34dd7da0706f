//! A client with our record layer and the progress of its relay, as plain data.
//!
//! This is compiled only for tests and fuzzing, until processes can hand their connections over.

use serde::{Deserialize, Serialize};

use super::{Joint, Lane};
use crate::relay::records::Records;
use crate::relay::{drive, records};
use crate::wire::Wire;

/// Everything in a [`Joint`] except the client's socket. It contains the keys of an open
/// connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    client: records::Exported,
    up: LaneState,
    down: LaneState,
}

#[derive(Serialize, Deserialize)]
struct LaneState {
    state: drive::State,
    unsent: Vec<u8>,
}

impl<IO: Wire> Joint<Records<IO>> {
    /// Takes the connection apart, between two records or in the middle of one.
    pub(crate) fn export(self) -> (IO, State) {
        let (io, client) = self.client.export();
        let state = State {
            client,
            up: self.up.export(),
            down: self.down.export(),
        };
        (io, state)
    }

    /// Continues an exported connection; `None` if the state is inconsistent.
    pub(crate) fn import(io: IO, state: State) -> Option<Self> {
        Some(Self {
            client: Records::import(io, state.client)?,
            up: Lane::import(state.up),
            down: Lane::import(state.down),
        })
    }
}

impl Lane {
    fn export(self) -> LaneState {
        LaneState {
            state: self.state,
            unsent: self.unsent.as_slice().to_vec(),
        }
    }

    fn import(state: LaneState) -> Self {
        Self {
            state: state.state,
            unsent: state.unsent.into(),
            // The next write finds out.
            unflushed: true,
        }
    }
}
