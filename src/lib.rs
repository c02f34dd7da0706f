//! Terminates TLS at the door and hands each connection, as a plain socket, to whoever is to
//! serve it.
//!
//!     client ══ TLS ══► Vestibule ── waits under its UUID ──► dialled backend (unix:, tcp:)
//!                                     resolved exactly once   worker at the gate (any language)
//!                                                             handler in this process
//!

// Words: what everything else talks about.
mod address;
mod deadline;
mod facts;
mod id;
mod outcome;
mod traffic;

// Mechanisms: each knows the words and nothing of the others.
mod drain;
mod limits;
mod relay;
mod rendezvous;
mod route;
mod sys;
mod tls;

// Observers.
mod ledger;

// Flow: the life of a connection.
mod backend;
mod client;
mod connection;
mod listener;
mod worker;

pub use address::{Address, ParseAddressError};
pub use deadline::{Deadline, Elapsed};
pub use facts::{Endpoint, Facts, Identity, TlsFacts};
pub use id::{Id, ParseIdError};
pub use outcome::Outcome;
pub use rendezvous::{Rendezvous, Ticket, Unclaimed, Unredeemed};
