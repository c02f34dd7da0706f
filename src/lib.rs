//! Terminates TLS and hands each connection, as a plain socket, to the program that serves it.
//!
//! ```text
//! client ══ TLS ══► Vestibule ── waits under its UUID ──► dialled backend (unix:, tcp:)
//!                                 resolved exactly once   worker at the gate (any language)
//!                                                         handler in this process
//! ```
//!
//! [`Proxy`] is the complete proxy: build it from a [`Config`], bind it, start it, drain it. Its
//! [`Backend`] accepts [`Connection`]s in this process. [`Supervisor`] adds reloads. [`Rendezvous`] is
//! the hand-over alone, for programs that terminate TLS themselves.

// Words: the types that everything else uses.
mod address;
mod authority;
mod deadline;
mod facts;
mod id;
mod identity;
mod outcome;
mod pace;
mod pattern;
mod residue;
mod time_slice;
mod traffic;
mod wire;

// Codecs: formats that several mechanisms use, without IO.
mod record;

// Mechanisms: each uses the words and codecs, and no other mechanism.
mod drain;
mod journal;
mod limits;
mod proxy_protocol;
mod relay;
mod rendezvous;
mod route;
mod sys;
mod tls;
mod tunnel;

// Observers.
mod audit;
mod ledger;
mod memory;
mod metrics;
mod moment;

// Flow: a connection from accept to its end.
mod active_config;
mod backend;
mod client;
mod connection;
mod join;
mod listener;
mod proxy_state;
mod revocations;
mod worker;

// Control: builds the flow and steers it.
mod admin;
mod config;
mod gate;
mod handler;
mod proxy;
mod supervisor;
mod watch;

// The fuzz targets in fuzz/ run this.
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

// For the command line: `vestibule doctor`.
#[doc(hidden)]
pub mod doctor;

// For the command line: it also reads a log filter from its environment, prints errors, and drops log
// lines that nobody reads.
#[doc(hidden)]
pub mod log_filter;
#[doc(hidden)]
pub mod lost_lines;
#[doc(hidden)]
pub mod printable;

// The benchmarks in benches/ measure this.
#[doc(hidden)]
#[cfg(feature = "_bench")]
pub mod bench;

pub use address::{Address, ParseAddressError};
pub use backend::AddressState;
pub use config::options;
pub use config::{
    Config, ConfigError, LogFormat, Problem, Question, QuestionError, Sidecar, SidecarError,
    Summary,
};
pub use deadline::{Deadline, Elapsed};
pub use facts::{Endpoint, Facts, TlsFacts};
pub use handler::{Backend, Connection};
pub use id::{Id, ParseIdError};
pub use identity::Identity;
pub use ledger::{ConnectionFilter, ConnectionState, OpenConnection};
pub use metrics::MetricsFormat;
pub use outcome::Outcome;
pub use proxy::{
    AddressChange, AdminListener, BindError, Builder, Drained, PathError, Proxy, ReloadError,
    Reloaded, Running, ServeError, Statistics, UnknownAddress,
};
pub use proxy_protocol::ProxyProtocol;
pub use rendezvous::{Rendezvous, Ticket, Unclaimed, Unredeemed};
pub use revocations::{Revocation, RevokeError, Revoked};
pub use supervisor::{ConfigSource, ReadError, ReloadFailure, Supervisor, SupervisorHandle};
pub use watch::{FileState, Watch};
