//! The signals that operators send to a running process.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use vestibule::SupervisorHandle;

/// The signals of `vestibule run`.
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

    /// Calls the supervisor for each signal: SIGHUP reloads; SIGTERM, SIGINT and SIGQUIT drain, and a
    /// second one closes the open connections; SIGUSR1 reopens the audit log.
    ///
    /// This version has no upgrade. Its signal is caught and logged, because its default action kills
    /// the process.
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
                _ = self.user1.recv() => match supervisor.reopen_audit_log() {
                    true => info!("SIGUSR1: reopening the audit log"),
                    false => info!("SIGUSR1: there is no audit log to reopen (audit.path); the log \
                                    goes to stderr"),
                },
                _ = self.user2.recv() => {
                    warn!("SIGUSR2: this version does not support upgrade; restart instead");
                }
            }
        }
    }
}

/// The signals that end the process: SIGTERM, SIGINT and SIGQUIT. Other servers drain on SIGQUIT too.
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

    /// Waits for one of these signals, and returns its name.
    pub(super) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
