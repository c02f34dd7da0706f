//! What operators say to a running process with signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

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

    /// The signals of an upgrade and of log rotation, whose default is to kill, are answered with what
    /// they come to in this version.
    pub(super) async fn asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                () = self.end.asked() => return Asked::End,
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.user1.recv() => {
                    info!("SIGUSR1: there is no file to reopen; the log goes to stderr");
                }
                _ = self.user2.recv() => {
                    warn!("SIGUSR2: this version does not support upgrade; restart instead");
                }
            }
        }
    }

    /// What this comes to, unless the end is asked for first, for which it is given up. The other
    /// signals are kept for [`Self::asked`].
    pub(super) async fn unless_end<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.end.asked() => None,
            done = work => Some(done),
        }
    }

    /// Waits for one of the signals that end.
    pub(super) async fn end_is_asked(&mut self) {
        while self.asked().await != Asked::End {
            warn!("SIGHUP ignored: no reload during a drain");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    End,
    Reload,
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

    /// Waits for one of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use anyhow::Context;
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::oneshot;
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::cli::run::control;

    // One test: all of the process hears its signals.
    #[test]
    fn a_read_that_hangs_is_given_up_for_the_end_holds_up_no_exit_and_loses_no_sighup() {
        for end in [Signal::TERM, Signal::INT, Signal::QUIT] {
            let (data, disk) = sync_channel::<()>(0);
            let ran = control(async {
                let mut signals = Signals::new().context("no signals")?;
                let (started, has_started) = oneshot::channel();
                let hangs = spawn_blocking(move || {
                    started.send(()).expect("a test that waits");
                    disk.recv_timeout(LONG)
                });
                has_started.await.context("no read")?;
                for signal in [Signal::HUP, end] {
                    kill_process(getpid(), signal).context("no signal")?;
                }
                assert!(signals.unless_end(hangs).await.is_none(), "{end:?}");
                assert_eq!(signals.asked().await, Asked::Reload);
                Ok(())
            });
            assert!(ran.is_ok());
            data.send(()).expect("a read that hangs still");
        }
    }

    /// Only a test that fails takes so long.
    const LONG: Duration = Duration::from_secs(60);
}
