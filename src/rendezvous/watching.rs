//! The bounds for clients that watch a backend, at the gate and in tunnels.

use std::time::Duration;

/// How many events a watcher may be behind, in addition to what its socket or its stream holds.
pub(crate) const CAPACITY: usize = 1024;

/// How long a watcher may take nothing while there is an event for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
