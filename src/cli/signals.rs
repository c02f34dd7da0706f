//! What operators say to a running process with signals.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use vestibule::SupervisorHandle;

/// What the operator says while it runs.
pub(super) struct Signals {
    end: End,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            end: End::new()?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Has the supervisor do what the signals say: SIGHUP reloads, the first one that ends drains, a
    /// second one cuts what is open then.
    ///
    /// The signals of an upgrade and of log rotation, whose default is to kill, are answered with what
    /// they come to in this version.
    pub(super) async fn steer(mut self, supervisor: SupervisorHandle) -> Infallible {
        loop {
            tokio::select! {
                biased;
                signal = self.end.asked() => match supervisor.is_draining() {
                    false => {
                        info!("{signal}: draining; a second signal cuts open connections at once");
                        supervisor.drain();
                    }
                    true => supervisor.cut(),
                },
                _ = self.hangup.recv() => match supervisor.is_draining() {
                    false => {
                        info!("SIGHUP: reloading");
                        supervisor.request_reload();
                    }
                    true => warn!("SIGHUP ignored: no reload during a drain"),
                },
                _ = self.user1.recv() => {
                    info!("SIGUSR1: there is no log file to reopen; the log goes to stderr");
                }
                _ = self.user2.recv() => {
                    warn!("SIGUSR2: this version does not support upgrade; restart instead");
                }
            }
        }
    }
}

/// The signals that end: SIGTERM, SIGINT, and SIGQUIT, on which other servers drain.
pub(super) struct End {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl End {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for one of them, and names it.
    pub(super) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
