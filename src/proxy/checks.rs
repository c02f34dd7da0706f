//! Runs the health checks of the backends that the active configuration has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::active_config::ActiveConfig;
use crate::backend::ActiveBackend;

/// One task for each backend with checks. They run on the runtime that starts the proxy, and never on a
/// worker.
#[derive(Debug)]
pub(super) struct Checks {
    running: HashMap<String, Running>,
    /// Ends all of them.
    end: CancellationToken,
}

#[derive(Debug)]
struct Running {
    backend: Arc<ActiveBackend>,
    most: Option<Duration>,
    _end: DropGuard,
}

impl Checks {
    /// `end` ends all checks.
    pub(super) fn new(end: CancellationToken) -> Self {
        Self {
            running: HashMap::new(),
            end,
        }
    }

    /// Ends the checks of backends that are no longer as they were, and begins those of new ones.
    pub(super) fn follow(&mut self, config: &ActiveConfig, tasks: &TaskTracker) {
        let most = config.timeouts.backend;
        self.running.retain(|name, running| {
            let active = config.backends.get(name);
            let is_same = active.is_some_and(|active| Arc::ptr_eq(active, &running.backend));
            if !is_same {
                running.backend.retire();
            }
            is_same && running.most == most
        });
        for (name, backend) in &config.backends {
            if self.running.contains_key(name) {
                continue;
            }
            let Some(checks) = backend.checks(most) else {
                continue;
            };
            let end = self.end.child_token();
            tasks.spawn(end.clone().run_until_cancelled_owned(checks));
            let running = Running {
                backend: Arc::clone(backend),
                most,
                _end: end.drop_guard(),
            };
            self.running.insert(name.clone(), running);
        }
    }
}
