//! `runtime.max_memory`: samples the memory, and closes connections before it is used up.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::error::BindError;
use crate::config::Config;
use crate::memory::{Controller, Decision, MemoryBudget, Pressure, Remark};
use crate::metrics::{Label, register};
use crate::proxy_state::ProxyState;
use crate::sys::memory::MemoryMeter;
use crate::sys::usage;

/// The budget for a proxy, and the meter for it if there is a maximum.
///
/// # Errors
///
/// There is a maximum, and the memory cannot be measured.
pub(super) fn budget(config: &Config) -> Result<(MemoryBudget, Option<MemoryMeter>), BindError> {
    let max = config.runtime.max_memory;
    if max.is_none() {
        let base = usage::resident().unwrap_or(0);
        return Ok((MemoryBudget::new(None, base, PROCESS), None));
    }
    let mut meter = MemoryMeter::open().map_err(BindError::Memory)?;
    let base = meter.used().map_err(BindError::Memory)?;
    let budget = MemoryBudget::new(max, base, meter.source());
    Ok((budget, Some(meter)))
}

/// Warns if the maximum cannot protect the process.
pub(super) fn warn_if_pointless(budget: &MemoryBudget, meter: &MemoryMeter) {
    let (max, base) = (budget.max().unwrap_or(u64::MAX), budget.base());
    let shown = |bytes| ByteSize(bytes).to_string();
    if base >= max / 100 * 80 {
        warn!(
            "runtime.max_memory is {}, and without connections {} are used already: clients will be \
             refused; raise it",
            shown(max),
            shown(base)
        );
    }
    if let Some(limit) = meter.limit().filter(|limit| *limit < max) {
        warn!(
            "runtime.max_memory is {}, but the kernel ends a process of this cgroup at {}; set \
             max_memory to four fifths of that, or raise the limit",
            shown(max),
            shown(limit)
        );
    }
}

/// Samples the memory for as long as it is polled.
pub(super) async fn watch(state: Arc<ProxyState>, mut meter: MemoryMeter) {
    let Some(max) = state.memory.max() else {
        return;
    };
    let mut controller = Controller::new(max, state.memory.base());
    let mut fails = false;
    loop {
        let used = match meter.used() {
            Ok(used) => used,
            Err(error) => {
                if !fails {
                    warn!(%error, "cannot measure the memory (runtime.max_memory); trying again");
                }
                fails = true;
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        fails = false;
        let open = state.ledger.open_connections();
        let decision = controller.step(Instant::now(), used, open);
        state.memory.publish(used, &decision);
        let is_tight = decision.pressure > Pressure::None;
        state.census.windows.tighten(is_tight);
        act(&state, used, max, &decision);
        sleep(decision.next).await;
    }
}

fn act(state: &ProxyState, used: u64, max: u64, decision: &Decision) {
    if let Some(remark) = decision.remark {
        say(remark, used, max);
    }
    if decision.shed > 0 {
        let closed = state.ledger.shed(decision.shed);
        if closed > 0 {
            let (used, max) = (ByteSize(used), ByteSize(max));
            info!(closed, %used, %max, "memory is short: closed the connections that were idle longest");
        }
    }
}

fn say(remark: Remark, used: u64, max: u64) {
    let percent = used.saturating_mul(100) / max;
    let (used, max) = (ByteSize(used), ByteSize(max));
    match remark {
        Remark::Rose(Pressure::None | Pressure::High) => warn!(
            %used, %max,
            "memory is at {percent} % of runtime.max_memory. From 90 % on new connections are closed, \
             from 95 % on also those that have been idle longest. Raise max_memory, or lower \
             limits.connections or timeouts.idle"
        ),
        Remark::Rose(Pressure::Refusing) => warn!(
            %used, %max,
            "memory is at {percent} % of runtime.max_memory: new connections are closed (shed) until \
             it is below 90 %"
        ),
        Remark::Rose(Pressure::Shedding) => warn!(
            %used, %max,
            "memory is at {percent} % of runtime.max_memory: new connections, and those that have been \
             idle longest, are closed (shed) until it is below 90 %"
        ),
        Remark::Fell => info!(%used, %max, "memory is below 75 % of runtime.max_memory again"),
        Remark::Useless => warn!(
            %used, %max,
            "closing idle connections frees no memory, so none is closed for a minute. Something else \
             uses it: see `memory` in /v1/status"
        ),
    }
}

/// What uses the memory, at one moment.
#[derive(Debug)]
pub(crate) struct MemoryUse {
    /// Of the process, in bytes. `None` if /proc cannot be read.
    pub resident: Option<u64>,
    /// What the maximum is compared with, in bytes.
    pub used: Option<u64>,
    pub max: Option<u64>,
    /// What is measured: `cgroup` or `process`.
    pub source: &'static str,
    pub pressure: Pressure,
    /// Bytes by kind. All but the first and the last are a number of connections times a usual size.
    pub kinds: [(&'static str, u64); 5],
}

impl MemoryUse {
    pub(crate) fn of(state: &ProxyState) -> Self {
        let memory = &state.memory;
        let resident = usage::resident();
        let used = memory.used().or(resident);
        let [open, waiting, handshakes] = state.limits.usage().map(|it| it.used);
        let served = open.saturating_sub(waiting + handshakes);
        let mut kinds = [
            ("process", memory.base()),
            ("connections", served * CONNECTION),
            ("handshakes", handshakes * HANDSHAKE),
            ("waiting", waiting * WAITING),
            ("other", 0),
        ];
        let known: u64 = kinds.iter().map(|(_, bytes)| bytes).sum();
        kinds[4].1 = used.unwrap_or(0).saturating_sub(known);
        Self {
            resident,
            used,
            max: memory.max(),
            source: memory.source(),
            pressure: memory.pressure(),
            kinds,
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let gauge = |bytes: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge
        };
        if let Some(used) = self.used {
            register(registry, "memory_bytes", gauge(used));
        }
        if let Some(max) = self.max {
            register(registry, "memory_max_bytes", gauge(max));
        }
        register(registry, "memory_pressure", gauge(self.pressure as u64));
        let kinds = Family::<[Label; 1], Gauge>::default();
        for (kind, bytes) in self.kinds {
            let labels = [("kind", kind.into())];
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            kinds.get_or_create(&labels).set(bytes);
        }
        register(registry, "memory_kind_bytes", kinds);
    }
}

const PROCESS: &str = "process";

/// The memory of a quiet connection that has carried bytes (benches/guard/budgets.tsv).
const CONNECTION: u64 = 4 * 1024;

/// The memory of a handshake that has a usual ClientHello.
const HANDSHAKE: u64 = 16 * 1024;

/// The memory of a connection without bytes that waits for its backend.
const WAITING: u64 = 8 * 1024;

const AFTER_ERROR: Duration = Duration::from_secs(1);
