//! Checks paths, directories, the dates of certificates, and the clock.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::machine::Machine;
use super::needs::Needs;
use super::{Finding, Level};
use crate::address::LONGEST_UNIX_PATH;
use crate::config::Config;
use crate::sys::directory::ensure_private;
use crate::tls::client_auth::ClientAuth;
use crate::tls::time::Date;

pub(super) fn check(machine: &Machine, needs: &Needs, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![socket_paths(machine, needs)];
    findings.extend(directories(machine, needs));
    if let Some(config) = config {
        findings.extend(certificates(machine, config));
    }
    findings.push(clock(machine));
    findings
}

/// The directory for sockets, as the start chooses it. `None`: a fresh one.
fn runtime_directory(machine: &Machine, needs: &Needs) -> Option<PathBuf> {
    let users = machine.users_directory.as_ref();
    let users = users.map(|it| it.join("vestibule"));
    needs.runtime_directory.clone().or(users)
}

/// Nothing but the gate needs the runtime directory.
fn level_of_gate(needs: &Needs) -> Level {
    match needs.has_gate {
        true => Level::Fail,
        false => Level::Warn,
    }
}

fn socket_paths(machine: &Machine, needs: &Needs) -> Finding {
    const CHECK: &str = "socket paths";
    let directory = runtime_directory(machine, needs).unwrap_or_else(|| {
        // Its name ends with a UUID.
        std::env::temp_dir().join(format!("vestibule-{}", "0".repeat(36)))
    });
    let gate = directory.join(&needs.gate_name);
    let gate = needs.gate.clone().unwrap_or(gate);
    let paths = needs.unix_listeners.iter().map(|(_, path)| path.clone());
    let lengths = paths.chain([gate]).map(|it| (it.as_os_str().len(), it));
    let (length, path) = lengths.max().unwrap_or_default();
    match length {
        ..=LONGEST_UNIX_PATH => Finding::ok(
            CHECK,
            format!("the longest has {length} bytes of {LONGEST_UNIX_PATH}"),
        ),
        _ => Finding::bad(
            CHECK,
            level_of_gate(needs),
            format!(
                "{} has {length} bytes; the path of a Unix socket has at most {LONGEST_UNIX_PATH}",
                path.display()
            ),
            "set runtime.directory or gate.path to a shorter path",
        ),
    }
}

fn directories(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    const CHECK: &str = "directories";
    let own = match &needs.gate {
        Some(path) => path.parent().map(Path::to_owned),
        None => runtime_directory(machine, needs),
    };
    let own = match own {
        Some(directory) => own_directory(&directory, "of the gate", level_of_gate(needs)),
        None => Finding::ok(
            CHECK,
            format!(
                "a fresh private directory in {} at each start",
                std::env::temp_dir().display()
            ),
        ),
    };
    let mut findings = vec![own];
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    if let Some(path) = &needs.admin {
        findings.push(own_directory(
            &parent(path),
            "of the admin socket",
            Level::Fail,
        ));
    }
    if let Some(path) = &needs.audit {
        findings.push(audit_directory(&parent(path)));
    }
    for (name, path) in &needs.unix_listeners {
        let directory = path.parent().unwrap_or(path);
        // A missing directory is a finding of the configuration already.
        if let Err(error) = ensure_private(directory)
            && error.kind() != ErrorKind::NotFound
        {
            let message = format!(
                "others can replace the socket of the listener {name:?}: {}: {error}",
                directory.display()
            );
            let advice = "put the socket into a directory that only trusted users can change";
            findings.push(Finding::bad(CHECK, Level::Warn, message, advice));
        }
    }
    findings
}

/// The directory of the audit log, in which rotated files are made too.
fn audit_directory(directory: &Path) -> Finding {
    const CHECK: &str = "directories";
    let shown = directory.display();
    let may = Access::WRITE_OK | Access::EXEC_OK;
    match accessat(CWD, directory, may, AtFlags::EACCESS) {
        Ok(()) => Finding::ok(CHECK, format!("{shown} is writable for the audit log")),
        Err(error) => Finding::bad(
            CHECK,
            Level::Fail,
            format!("the audit log cannot be written to {shown}: {error}"),
            format!("create it for the user of Vestibule: `install -d -m 0700 -o USER {shown}`"),
        ),
    }
}

/// A directory of a socket, which the start creates if it is missing.
fn own_directory(directory: &Path, whose: &str, level: Level) -> Finding {
    const CHECK: &str = "directories";
    let shown = directory.display();
    match ensure_private(directory) {
        Ok(()) => Finding::ok(CHECK, format!("{shown}: only trusted users can change it")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let there = directory.ancestors().find(|it| it.exists());
            let there = there.unwrap_or(Path::new("/"));
            let may = Access::WRITE_OK | Access::EXEC_OK;
            match accessat(CWD, there, may, AtFlags::EACCESS) {
                Ok(()) => Finding::ok(CHECK, format!("{shown} is created at the start")),
                Err(error) => Finding::bad(
                    CHECK,
                    level,
                    format!("{shown} does not exist and cannot be created: {error}"),
                    format!(
                        "create it for the user of Vestibule: `install -d -m 0700 -o USER {shown}`"
                    ),
                ),
            }
        }
        Err(error) => Finding::bad(
            CHECK,
            level,
            format!("{shown}: {error}"),
            format!("no other user may be able to change the directory {whose}, or one above it"),
        ),
    }
}

fn certificates(machine: &Machine, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let expired = config.expired().iter().map(|it| {
        let message = format!("line {}: {}", it.line, it.message);
        let advice = "replace the file; a running Vestibule loads it when it changes";
        Finding::bad(CHECK, Level::Fail, message, advice)
    });
    let mut findings: Vec<Finding> = expired.collect();
    let tls = || config.listeners.iter().filter_map(|it| it.tls.as_ref());
    let certificates = tls().flat_map(|it| it.hosts.certificates());
    let ends: Vec<SystemTime> = certificates.map(|it| *it.validity().end()).collect();
    let lists = tls().flat_map(|it| it.client_auth.iter().flat_map(ClientAuth::lists));
    let updates: Vec<Option<SystemTime>> = lists.map(|it| it.next_update()).collect();
    let first = ends.iter().chain(updates.iter().flatten()).min();
    if let (Some(first), true) = (first, findings.is_empty()) {
        let left = first.duration_since(machine.now).unwrap_or_default();
        let message = format!(
            "certificates of listeners: {}, revocation lists: {}; the first ends on {} ({} days)",
            ends.len(),
            updates.len(),
            Date(*first),
            left.as_secs() / DAY.as_secs()
        );
        findings.push(Finding::ok(CHECK, message));
    }
    findings
}

fn clock(machine: &Machine) -> Finding {
    const CHECK: &str = "clock";
    let since = machine.now.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    let shown = Date(machine.now);
    if !(RELEASED..IMPLAUSIBLE).contains(&seconds) {
        return Finding::bad(
            CHECK,
            Level::Fail,
            format!("{shown} cannot be right, and certificates are judged by this clock"),
            "set the clock, and keep it right with NTP",
        );
    }
    let kept = match machine.text("run/systemd/timesync/synchronized") {
        Some(_) => ", synchronised by systemd-timesyncd",
        None => "",
    };
    Finding::ok(CHECK, format!("{shown}{kept}"))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// 2026-01-01: this version is younger.
const RELEASED: u64 = 1_767_225_600;

/// 2100-01-01.
const IMPLAUSIBLE: u64 = 4_102_444_800;
