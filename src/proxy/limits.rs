//! The limits in force, configured or not, as they are shown at start.

use std::fmt;

use tracing::warn;

use crate::backend::To;
use crate::config::Config;

/// What limits this process, configured or not.
#[derive(Debug)]
pub(super) struct EffectiveLimits {
    connections: Option<usize>,
    connections_per_ip: Option<usize>,
    pending: Option<usize>,
    descriptors: Option<u64>,
    workers: usize,
    /// What one connection takes, at most.
    descriptors_each: u64,
}

impl EffectiveLimits {
    pub(super) fn new(config: &Config, descriptors: Option<u64>, workers: usize) -> Self {
        Self {
            connections: config.limits.connections,
            connections_per_ip: config.limits.connections_per_ip,
            pending: config.limits.pending,
            descriptors,
            workers,
            descriptors_each: match config
                .backends
                .iter()
                .any(|b| matches!(b.to, To::Dialled(_)))
            {
                true => 2,
                false => 1,
            },
        }
    }

    /// The limits stay as they are: a lower one that nobody asked for would be a surprise.
    pub(super) fn warn_if_unreachable(&self) {
        let Some(descriptors) = self.descriptors else {
            return;
        };
        let connections = self
            .connections
            .map_or(u64::MAX, |connections| connections as u64);
        if connections.saturating_mul(self.descriptors_each) >= descriptors {
            warn!(
                descriptors,
                "limits.connections cannot be reached: a connection needs one file descriptor, or \
                 two with a dialled backend; raise `ulimit -n` or lower the limit"
            );
        }
    }
}

impl fmt::Display for EffectiveLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |limit: Option<u64>| limit.map_or("unlimited".into(), |n| n.to_string());
        let count = |count: Option<usize>| limit(count.map(|n| n as u64));
        write!(
            f,
            "limits: connections={} connections_per_ip={} pending={} descriptors={} \
             memory=unlimited workers={}",
            count(self.connections),
            count(self.connections_per_ip),
            count(self.pending),
            limit(self.descriptors),
            self.workers
        )
    }
}
