//! Checks the memory against the limits of connections.

use bytesize::ByteSize;

use super::machine::Machine;
use super::needs::Needs;
use super::{Finding, Level};

/// Compares the memory with an estimate of what is used when all limits are reached at the same time.
pub(super) fn check(machine: &Machine, needs: &Needs) -> Finding {
    const CHECK: &str = "memory";
    let Some((available, whose)) = machine.memory() else {
        let message = "cannot read /proc/meminfo";
        return Finding::bad(CHECK, Level::Warn, message, "mount /proc");
    };
    let shown = |bytes: u64| ByteSize(bytes).to_string();
    let (Some(connections), Some(handshaking), Some(pending)) =
        (needs.connections, needs.handshaking, needs.pending)
    else {
        let message = format!(
            "{} of {whose}; limits.connections, handshaking or pending is unlimited, so clients can \
             use all of it",
            shown(available)
        );
        return Finding::bad(CHECK, Level::Warn, message, "set these limits");
    };
    let others = without_connections(handshaking, pending);
    let needed = others.saturating_add(connections.saturating_mul(CONNECTION));
    let message = format!(
        "{} of {whose}; {connections} idle connections, {handshaking} handshakes and {pending} waiting \
         clients take about {}",
        shown(available),
        shown(needed)
    );
    let advice = match available.saturating_sub(others) / CONNECTION {
        0 => format!(
            "raise the limit of memory, or lower limits.handshaking ({} each), limits.pending ({} \
             each) and limits.connections ({} each)",
            shown(HANDSHAKE),
            shown(PENDING),
            shown(CONNECTION)
        ),
        fit => format!("raise the limit of memory, or set limits.connections below {fit}"),
    };
    // Connections in use take more than idle ones.
    match needed {
        needed if needed > available => Finding::bad(CHECK, Level::Fail, message, advice),
        needed if needed > available / 5 * 4 => Finding::bad(CHECK, Level::Warn, message, advice),
        _ => Finding::ok(CHECK, message),
    }
}

/// Compares `runtime.max_memory` with what the limits need, and with the memory that there is.
pub(super) fn check_budget(machine: &Machine, needs: &Needs) -> Option<Finding> {
    const CHECK: &str = "memory budget";
    let shown = |bytes: u64| ByteSize(bytes).to_string();
    let bad = |message, advice| Finding::bad(CHECK, Level::Warn, message, advice);
    let max = needs.max_memory?;
    let mut message = format!("runtime.max_memory is {}", shown(max));
    if let Some((available, whose)) = machine.memory().filter(|(it, _)| *it < max) {
        message += &format!(", and {whose} has {}", shown(available));
        let advice = format!("set max_memory to {}", shown(available / 5 * 4));
        return Some(bad(message, advice));
    }
    let (Some(connections), Some(handshaking), Some(pending)) =
        (needs.connections, needs.handshaking, needs.pending)
    else {
        message += "; beyond 90 % of it new clients are refused, whatever the limits allow";
        return Some(Finding::ok(CHECK, message));
    };
    let others = without_connections(handshaking, pending);
    let needed = others.saturating_add(connections.saturating_mul(CONNECTION));
    let usable = max / 10 * 9;
    if needed <= usable {
        message += &format!(", and clients at their limits take about {}", shown(needed));
        return Some(Finding::ok(CHECK, message));
    }
    message += &format!(
        "; new clients are refused from 90 % on, before limits.connections is reached: clients at their \
         limits take about {}",
        shown(needed)
    );
    let enough = shown(needed / 9 * 10);
    let advice = match usable.saturating_sub(others) / CONNECTION {
        0 => format!("set max_memory to {enough}, or lower limits.handshaking and limits.pending"),
        fit => format!("set max_memory to {enough}, or limits.connections below {fit}"),
    };
    Some(bad(message, advice))
}

/// An estimate of what everything but established connections takes at the limits.
fn without_connections(handshaking: u64, pending: u64) -> u64 {
    [(handshaking, HANDSHAKE), (pending, PENDING)]
        .map(|(number, bytes)| number.saturating_mul(bytes))
        .into_iter()
        .fold(PROCESS, u64::saturating_add)
}

/// An idle connection: 4 KiB in the process (docs/operation.md), and an estimate of 6 KiB in the kernel
/// for its two sockets.
const CONNECTION: u64 = 10 * 1024;

/// What a handshake may hold of the client's bytes.
const HANDSHAKE: u64 = 64 * 1024;

/// What a waiting connection may hold of the client's bytes.
const PENDING: u64 = 16 * 1024;

/// The process without connections.
const PROCESS: u64 = 16 * 1024 * 1024;
