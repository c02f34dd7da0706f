//! Waits for the commands that were started, and for whatever else becomes a child of this process.
//!
//! As PID 1 of a container it inherits the processes whose parents have ended. They stay in the process
//! table until somebody waits for them, so all children are waited for, and those that were started
//! here are told apart.

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
    /// How a child ends. To be asked in the same turn in which it was started: before it is waited for.
    pub(super) fn wait_for(&self, child: &Child) -> oneshot::Receiver<WaitStatus> {
        let (ended, has_ended) = oneshot::channel();
        self.table().insert(child.id().cast_signed(), ended);
        has_ended
    }

    /// Waits for children for as long as it is polled; ends only if it cannot.
    pub(super) async fn reap(&self) -> anyhow::Error {
        let mut child = match signal(SignalKind::child()) {
            Ok(signal) => signal,
            Err(error) => return anyhow!(error).context("cannot listen for signals"),
        };
        loop {
            // One signal may stand for many.
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

/// The signal that has killed a command, for people.
///
/// Not SIGPIPE: so end most commands whose client has left, and the client decides how often.
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
