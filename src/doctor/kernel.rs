//! Checks the limits of the kernel.

use super::machine::Machine;
use super::needs::Needs;
use super::{Finding, Level};
use crate::sys::tcp::BACKLOG;

pub(super) fn check(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    vec![
        descriptors(machine, needs),
        ports(machine, needs),
        backlog(machine),
        inotify(machine, needs),
        landlock(machine),
    ]
}

/// Nine tenths of `limits.connections` must fit. If less is missing, clients wait only when nearly all
/// places are taken.
fn shortage(possible: u64, connections: u64) -> Level {
    match possible.saturating_mul(10) < connections.saturating_mul(9) {
        true => Level::Fail,
        false => Level::Warn,
    }
}

fn descriptors(machine: &Machine, needs: &Needs) -> Finding {
    const CHECK: &str = "descriptors";
    let Some((soft, hard)) = machine.open_files() else {
        return unknown(CHECK, "proc/self/limits");
    };
    let raised = match soft == hard {
        true => "",
        false => "; `vestibule run` raises the soft limit to it",
    };
    let Some(hard) = hard else {
        return Finding::ok(CHECK, format!("there is no hard limit{raised}"));
    };
    let each = needs.descriptors_each;
    let possible = hard.saturating_sub(OTHER_DESCRIPTORS) / each;
    let Some(connections) = needs.connections else {
        let message = format!(
            "the hard limit is {hard}, enough for {possible} connections; limits.connections is \
             unlimited. More clients than that wait"
        );
        let advice = format!("set limits.connections = {possible} or less");
        return Finding::bad(CHECK, Level::Warn, message, advice);
    };
    let needed = connections.saturating_mul(each);
    let needed = needed.saturating_add(OTHER_DESCRIPTORS);
    if needed <= hard {
        let message =
            format!("the hard limit is {hard}; {connections} connections need {needed}{raised}");
        return Finding::ok(CHECK, message);
    }
    let message = format!(
        "the hard limit is {hard}, enough for {possible} connections; limits.connections is \
         {connections}. More clients than {possible} wait"
    );
    let advice = format!(
        "raise the hard limit to {needed} (systemd: LimitNOFILE={needed}; shell: `ulimit -Hn {needed}` \
         as root), or set limits.connections = {possible}"
    );
    Finding::bad(CHECK, shortage(possible, connections), message, advice)
}

/// The kernel needs one local port for each connection to one address of a backend.
fn ports(machine: &Machine, needs: &Needs) -> Finding {
    const CHECK: &str = "ports";
    const FILE: &str = "proc/sys/net/ipv4/ip_local_port_range";
    if needs.tcp_backends == 0 {
        return Finding::ok(CHECK, "none needed: no backend is dialled over TCP");
    }
    let text = machine.text(FILE).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
        return unknown(CHECK, FILE);
    };
    let each = (last + 1).saturating_sub(first);
    let possible = each.saturating_mul(needs.tcp_backends);
    let message = format!(
        "{each} ephemeral ports ({first} to {last}), enough for {possible} connections to the TCP \
         addresses of backends: {}",
        needs.tcp_backends
    );
    let advice = "run `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, give the backend more \
                  addresses, or use a Unix socket";
    match needs.connections {
        Some(connections) if connections > possible => {
            let message = format!("{message}; limits.connections is {connections}");
            Finding::bad(CHECK, shortage(possible, connections), message, advice)
        }
        None => {
            let message = format!("{message}; limits.connections is unlimited");
            Finding::bad(CHECK, Level::Warn, message, advice)
        }
        Some(_) => Finding::ok(CHECK, message),
    }
}

fn backlog(machine: &Machine) -> Finding {
    const CHECK: &str = "backlog";
    const FILE: &str = "proc/sys/net/core/somaxconn";
    let wanted = u64::from(BACKLOG.unsigned_abs());
    match machine.number(FILE) {
        None => unknown(CHECK, FILE),
        Some(most) if most < wanted => Finding::bad(
            CHECK,
            Level::Warn,
            format!(
                "net.core.somaxconn is {most}: of clients that connect at the same time, the kernel \
                 holds {most} for a listener; the others try again after a second or more"
            ),
            format!("run `sysctl -w net.core.somaxconn={wanted}`"),
        ),
        Some(most) => Finding::ok(
            CHECK,
            format!("net.core.somaxconn is {most}; listeners ask for {wanted}"),
        ),
    }
}

/// Without inotify, changes of files are noticed later.
fn inotify(machine: &Machine, needs: &Needs) -> Finding {
    const CHECK: &str = "inotify";
    const INSTANCES: &str = "proc/sys/fs/inotify/max_user_instances";
    const WATCHES: &str = "proc/sys/fs/inotify/max_user_watches";
    let (instances, watches) = (machine.number(INSTANCES), machine.number(WATCHES));
    let (Some(instances), Some(watches)) = (instances, watches) else {
        return unknown(CHECK, INSTANCES);
    };
    let used = machine.inotify_instances();
    let slow = "changes of the configuration and of certificates are noticed only within 15 s";
    if used >= instances {
        return Finding::bad(
            CHECK,
            Level::Warn,
            format!("a user may have {instances} instances, and {used} are in use: {slow}"),
            "run `sysctl -w fs.inotify.max_user_instances=512`",
        );
    }
    if watches < needs.watched {
        let needed = needs.watched;
        return Finding::bad(
            CHECK,
            Level::Warn,
            format!("a user may watch {watches} directories, and {needed} are needed: {slow}"),
            "run `sysctl -w fs.inotify.max_user_watches=65536`",
        );
    }
    let message = format!("{instances} instances and {watches} watches for a user; {used} in use");
    Finding::ok(CHECK, message)
}

/// This version does not use Landlock, so nothing can break.
fn landlock(machine: &Machine) -> Finding {
    const CHECK: &str = "landlock";
    const FILE: &str = "proc/sys/kernel/osrelease";
    let release = machine.text(FILE).unwrap_or_default();
    let Some(version) = version(&release) else {
        return unknown(CHECK, FILE);
    };
    let abi = LANDLOCK.iter().rev().find(|(since, _)| version >= *since);
    let message = match (abi, machine.text("sys/kernel/security/lsm")) {
        (None, _) => format!("Linux {release} has no Landlock"),
        (Some((_, abi)), None) => format!(
            "ABI {abi} by the version of the kernel ({release}); cannot see whether it is enabled"
        ),
        (Some((_, abi)), Some(modules)) if modules.split(',').any(|it| it == "landlock") => {
            format!("enabled, ABI {abi} by the version of the kernel ({release})")
        }
        (Some(_), Some(modules)) => format!("not enabled on this machine (active: {modules})"),
    };
    Finding::ok(CHECK, format!("{message}. This version does not use it"))
}

/// Major and minor of a kernel's release, such as `6.8.0-31-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn unknown(check: &'static str, file: &str) -> Finding {
    let message = format!("cannot read /{file}");
    Finding::bad(check, Level::Warn, message, "mount /proc")
}

/// Listeners, the gate, the runtimes of the workers and the log.
const OTHER_DESCRIPTORS: u64 = 64;

/// The kernel that brought each ABI (landlock(7)).
const LANDLOCK: [((u32, u32), u32); 7] = [
    ((5, 13), 1),
    ((5, 19), 2),
    ((6, 2), 3),
    ((6, 7), 4),
    ((6, 10), 5),
    ((6, 12), 6),
    ((6, 15), 7),
];
