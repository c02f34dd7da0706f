//! Terminates TLS at the door and hands each connection, as a plain socket, to whoever is to
//! serve it.
//!
//! ```text
//! client ══ TLS ══► Vestibule ── waits under its UUID ──► dialled backend (unix:, tcp:)
//!                                 resolved exactly once   worker at the gate (any language)
//!                                                         handler in this process
//! ```
//!
//! [`Proxy`] is the whole of it: built from a [`Config`], bound, started, drained. Its
//! [`Backend`] accepts [`Connection`]s in this process. [`Rendezvous`] is the hand-over alone,
//! for programs that terminate TLS themselves.

// Words: what everything else talks about.
mod address;
mod atomic_watch;
mod deadline;
mod facts;
mod id;
mod identity;
mod outcome;
mod pace;
mod pattern;
mod residue;
mod traffic;
mod wire;

// Codecs: what several mechanisms speak, without IO.
mod record;

// Mechanisms: each knows the words and codecs, and nothing of the others.
mod drain;
mod limits;
mod proxy_protocol;
mod relay;
mod rendezvous;
mod route;
mod sys;
mod tls;

// Observers.
mod ledger;

// Flow: the life of a connection.
mod active_config;
mod backend;
mod client;
mod connection;
mod listener;
mod proxy_state;
mod worker;

// Control: what puts the flow together and steers it.
mod config;
mod gate;
mod handler;
mod proxy;
mod supervisor;
mod watch;

// What fuzz/ runs.
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

// For the command line, which has a filter from its environment, and errors to print, too.
#[doc(hidden)]
pub mod log_filter;
#[doc(hidden)]
pub mod printable;

// What benches/ measure.
#[doc(hidden)]
#[cfg(feature = "_bench")]
pub mod bench;

pub use address::{Address, ParseAddressError};
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
pub use outcome::Outcome;
pub use proxy::{
    BindError, Builder, Drained, PathError, Proxy, ReloadError, Reloaded, Running, ServeError,
    Statistics,
};
pub use proxy_protocol::ProxyProtocol;
pub use rendezvous::{Rendezvous, Ticket, Unclaimed, Unredeemed};
pub use supervisor::{ConfigSource, ReadError, ReloadFailure, Supervisor, SupervisorHandle};
pub use watch::{FileState, Watch};
