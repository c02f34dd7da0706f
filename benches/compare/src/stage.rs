//! The two sides of the proxy, driven by one poll.

use std::time::Duration;

use anyhow::Result;

use crate::backend::Backend;
use crate::poll::{Poll, Ready};
use crate::task::Task;

/// The poll and the backend. Tokens of clients are small numbers.
pub(crate) struct Stage {
    /// Clients must be registered here.
    pub(crate) poll: Poll,
    /// The other side of the proxy.
    pub(crate) backend: Backend,
    ready: Vec<Ready>,
}

impl Stage {
    /// Starts the backend of the task.
    pub(crate) fn set(task: &Task) -> Result<Self> {
        let poll = Poll::new()?;
        let backend = Backend::bind(&poll, &task.backend, task.backend_tls.as_ref())?;
        Ok(Self {
            poll,
            backend,
            ready: Vec::with_capacity(256),
        })
    }

    /// Waits for events, serves the backend, and returns the clients that are ready.
    pub(crate) fn turn(&mut self, clients: &mut Vec<Ready>) -> Result<()> {
        self.poll.wait(&mut self.ready)?;
        self.serve(clients)
    }

    /// Like [`Self::turn`], but waits at most for `time`.
    pub(crate) fn turn_at_most(&mut self, time: Duration, clients: &mut Vec<Ready>) -> Result<()> {
        self.poll.wait_at_most(time, &mut self.ready)?;
        self.serve(clients)
    }

    fn serve(&mut self, clients: &mut Vec<Ready>) -> Result<()> {
        clients.clear();
        for &ready in &self.ready {
            if Backend::owns(ready.token) {
                self.backend.serve(&self.poll, ready)?;
            } else {
                clients.push(ready);
            }
        }
        Ok(())
    }
}
