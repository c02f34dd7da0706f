//! The effective limits, as they are logged at start.

use std::fmt;

use bytesize::ByteSize;
use tracing::warn;

use crate::config::Config;

/// The limits of this process: configured ones, defaults, and those of the system.
#[derive(Debug)]
pub(super) struct EffectiveLimits {
    connections: Option<usize>,
    connections_per_ip: Option<usize>,
    handshaking: Option<usize>,
    pending: Option<usize>,
    descriptors: Option<u64>,
    memory: Option<u64>,
    workers: usize,
    /// File descriptors that one connection needs at most.
    descriptors_each: u64,
}

impl EffectiveLimits {
    pub(super) fn new(config: &Config, descriptors: Option<u64>, workers: usize) -> Self {
        Self {
            connections: config.limits.connections,
            connections_per_ip: config.limits.connections_per_ip,
            handshaking: config.limits.handshaking,
            pending: config.limits.pending,
            descriptors,
            memory: config.runtime.max_memory,
            workers,
            descriptors_each: match config.backends.iter().all(|it| it.to.is_built_in()) {
                true => 1,
                false => 2,
            },
        }
    }

    /// Warns if `limits.connections` needs more descriptors than there are. The limit is not lowered: a
    /// limit that nobody has configured would be a surprise.
    pub(super) fn warn_if_unreachable(&self) {
        let Some(descriptors) = self.descriptors else {
            return;
        };
        let Some(connections) = self.connections else {
            warn!(
                descriptors,
                "limits.connections is unlimited, but file descriptors are not; clients wait when \
                 none is left"
            );
            return;
        };
        let needed = (connections as u64).saturating_mul(self.descriptors_each);
        if needed >= descriptors {
            warn!(
                descriptors,
                "limits.connections cannot be reached: {connections} connections may need {needed} \
                 file descriptors; raise `ulimit -n` (in systemd, LimitNOFILE=) above that, or \
                 lower the limit"
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
            "limits: connections={} handshaking={} connections_per_ip={} pending={} descriptors={} \
             memory={} workers={}",
            count(self.connections),
            count(self.handshaking),
            count(self.connections_per_ip),
            count(self.pending),
            limit(self.descriptors),
            // Without a space, as all values of the line.
            self.memory
                .map_or("unlimited".into(), |bytes| ByteSize(bytes)
                    .to_string()
                    .replace(' ', "")),
            self.workers
        )
    }
}
