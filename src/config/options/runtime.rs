//! `[runtime]` and `[gate]`.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use crate::config::LogFormat;
use crate::ledger::AccessLog;

/// `[runtime]`: threads, the log, and the process.
///
/// A change needs a new [`Proxy`](crate::Proxy); a reload refuses it.
///
/// ```
/// use vestibule::options::RuntimeOptions;
///
/// let runtime = RuntimeOptions::default().workers(2).directory("/run/example");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct RuntimeOptions(pub(super) Section);

/// Who processes the TLS records of an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayMode {
    /// Vestibule's record layer, if it supports the cipher suite.
    Auto,
    /// Always rustls. The behaviour is the same; it takes more memory and CPU.
    Stream,
}

impl RuntimeOptions {
    /// The number of worker threads, from 1 to 1024. Default: the number of CPUs that the process may
    /// use. Worker threads exist only with
    /// [`Builder::on_worker_threads`](crate::Builder::on_worker_threads).
    pub fn workers(mut self, workers: usize) -> Self {
        self.0.set("workers", workers);
        self
    }

    /// The directory of the gate, created with mode 0700. Default: `$XDG_RUNTIME_DIR/vestibule`, or
    /// else a fresh private directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.0.set("directory", directory.into());
        self
    }

    /// The log filter, in the syntax of `RUST_LOG`. Default: `info`. The library only checks it and returns
    /// it from [`Config::log`](crate::Config::log): the program sets up its own subscriber.
    pub fn log(mut self, filter: impl Into<String>) -> Self {
        self.0.set("log", filter.into());
        self
    }

    /// The format of log lines. Default: [`LogFormat::Text`]. As with [`log`](Self::log), the program
    /// applies it.
    pub fn log_format(mut self, format: LogFormat) -> Self {
        let word = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        self.0.set("log_format", word);
        self
    }

    /// Which connections have a line in the log when they end. Default: [`AccessLog::Failures`].
    pub fn access_log(mut self, connections: AccessLog) -> Self {
        let word = match connections {
            AccessLog::Failures => "failures",
            AccessLog::Connections => "connections",
        };
        self.0.set("access_log", word);
        self
    }

    /// Whether core dumps, and debuggers of the same user, may read the private keys in memory.
    /// Default: `false`.
    pub fn core_dumps(mut self, allowed: bool) -> Self {
        self.0.set("core_dumps", allowed);
        self
    }

    /// The most memory, in bytes, above 0; `None` is unlimited. Default: `None`. The memory is that of
    /// the whole process, or of its control group if that has a limit. Near the maximum, new connections
    /// are closed as [`Outcome::Shed`](crate::Outcome::Shed), and then those that have been idle longest.
    ///
    /// With an allocator that keeps freed memory, such as glibc's, closing connections may not help.
    pub fn max_memory(mut self, bytes: impl Into<Option<u64>>) -> Self {
        let word = match bytes.into() {
            Some(bytes) => format!("{bytes}B"),
            None => "unlimited".into(),
        };
        self.0.set("max_memory", word);
        self
    }

    /// A file that is touched while connections are open, at most once in ten seconds, and created if
    /// there is none. A relative path is relative to the working directory. Default: none.
    pub fn heartbeat(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // In a file, `none` means no heartbeat, so a file of that name needs a directory.
        let path = match path.to_str() {
            Some("none") => PathBuf::from("./none"),
            _ => path,
        };
        self.0.set("heartbeat", path);
        self
    }

    /// The time without a connection after which a [`Supervisor`](crate::Supervisor) drains and ends; it is
    /// ignored without one. `None`: never. Default: never.
    pub fn idle_exit(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("idle_exit", time.into());
        self
    }

    /// Who processes TLS records. Default: [`RelayMode::Auto`].
    pub fn relay(mut self, mode: RelayMode) -> Self {
        let word = match mode {
            RelayMode::Auto => "auto",
            RelayMode::Stream => "stream",
        };
        self.0.set("relay", word);
        self
    }
}

/// `[gate]`: the Unix socket where worker processes come for the connections of claimed backends.
///
/// It is opened if a backend has the target [`BackendTarget::Gate`](super::BackendTarget::Gate). A
/// program that serves such backends itself needs no gate: [`GateOptions::none`]. A change needs a new
/// [`Proxy`](crate::Proxy); a reload refuses it.
///
/// ```
/// use vestibule::options::GateOptions;
///
/// let gate = GateOptions::default().path("workers.sock").allow_uids([1000]);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct GateOptions(pub(super) Section);

impl GateOptions {
    /// No gate: only this program serves claimed backends, through
    /// [`Proxy::backend`](crate::Proxy::backend).
    pub fn none() -> Self {
        let mut section = Section::default();
        section.set("path", "none");
        Self(section)
    }

    /// The path of the socket: absolute, or relative to `runtime.directory`. The whole path has at most
    /// 107 bytes. Default: `gate.sock`.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // In a file, `none` means no gate, so a file of that name needs a directory.
        let path = match path.to_str() {
            Some("none") => PathBuf::from("./none"),
            _ => path,
        };
        self.0.set("path", path);
        self
    }

    /// User ids that may connect, in addition to root and the user of this process. Default: none.
    pub fn allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.0.set_list("allow_uids", uids);
        self
    }

    /// Group ids: processes with this primary or supplementary group may connect. Default: none.
    pub fn allow_gids(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.0.set_list("allow_gids", gids);
        self
    }

    /// How many clients may be connected: those that send their line, wait, watch or are registered.
    /// From 1 to `u32::MAX`, or `None` for unlimited. Default: 1024.
    pub fn max_clients(mut self, clients: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("max_clients", clients.into());
        self
    }
}
