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
    let others = [(handshaking, HANDSHAKE), (pending, PENDING)]
        .map(|(number, bytes)| number.saturating_mul(bytes))
        .into_iter()
        .fold(PROCESS, u64::saturating_add);
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

/// An idle connection: 4 KiB in the process (docs/operation.md), and an estimate of 6 KiB in the kernel
/// for its two sockets.
const CONNECTION: u64 = 10 * 1024;

/// What a handshake may hold of the client's bytes.
const HANDSHAKE: u64 = 64 * 1024;

/// What a waiting connection may hold of the client's bytes.
const PENDING: u64 = 16 * 1024;

/// The process without connections.
const PROCESS: u64 = 16 * 1024 * 1024;
