//! Waits for the commands that were started, and for every other child of this process.
//!
//! As PID 1 of a container, this process inherits the processes whose parents have ended. They stay in
//! the process table until their parent waits for them. So this module waits for all children and picks
//! out those that it started.

use std::collections::HashMap;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(super) struct Children(Mutex<HashMap<i32, oneshot::Sender<WaitStatus>>>);

impl Children {
    /// Returns a receiver for the exit status of `child`. Call it before the next await after the start
    /// of `child`, so that [`Children::reap`] cannot collect the child first.
    pub(super) fn wait_for(&self, child: &Child) -> oneshot::Receiver<WaitStatus> {
        let (ended, has_ended) = oneshot::channel();
        self.table().insert(child.id().cast_signed(), ended);
        has_ended
    }

    /// Waits for children as long as it is polled. Returns only if it cannot listen for SIGCHLD.
    pub(super) async fn reap(&self) -> anyhow::Error {
        let mut child = match signal(SignalKind::child()) {
            Ok(signal) => signal,
            Err(error) => return anyhow!(error).context("cannot listen for signals"),
        };
        loop {
            // One signal may stand for several children.
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let started = self.table().remove(&pid.as_raw_nonzero().get());
                if let Some(ended) = started {
                    let _ = ended.send(status);
                }
            }
            child.recv().await;
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<WaitStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the signal that killed a command, for the log.
///
/// SIGPIPE is left out: most commands end with it when their client leaves, so clients would decide how
/// many lines are logged.
pub(super) fn killed_by(status: WaitStatus) -> Option<String> {
    let signal = status.terminating_signal()?;
    let name = match signal {
        PIPE => return None,
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL, possibly because memory ran out",
        11 => "SIGSEGV",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        _ => return Some(format!("signal {signal}")),
    };
    Some(format!("signal {signal} ({name})"))
}

const PIPE: i32 = 13;
