//! Predicts whether this process could bind an address of the configuration now.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::table::Table;
use crate::address::Address;
use crate::sys::directory::ensure_private;
use crate::sys::listeners::{Holder, holder};
use crate::sys::process::shown;
use crate::sys::tcp;

/// Reports what can be seen now, and records the host for
/// [`Unready::all`](super::unready::Unready::all).
pub(super) fn forecast(table: &Table<'_>, place: usize, address: &Address) {
    match address {
        Address::Unix(path) => {
            if let Some(obstacle) = obstacle(path) {
                table.unready_at(place, format!("`listener.address`: {obstacle}"));
            }
        }
        Address::Tcp { host, port } => {
            table.bound_at(place, host);
            if !tcp::may_bind(*port) {
                let message = format!(
                    "`listener.address`: user {} may not bind port {port}: ports below {} need \
                     root or CAP_NET_BIND_SERVICE",
                    user(),
                    tcp::first_unprivileged()
                );
                table.warn_at(place, message);
            }
        }
    }
}

/// The same for the gate at an absolute path. A directory that is missing is made at the start.
pub(super) fn gate(table: &Table<'_>, place: usize, path: &Path) {
    let directory = path.parent().unwrap_or(path);
    match ensure_private(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let directory = directory.display();
            let message = format!("`gate.path`: cannot use the directory {directory}: {error}");
            table.unready_at(place, message);
        }
        _ => {}
    }
}

/// The process that listens on the port now. It may be the Vestibule that will be reloaded.
pub(super) fn in_use(address: &Address) -> Option<String> {
    let Address::Tcp { host, port } = address else {
        return None;
    };
    let addresses = tcp::addresses(host, *port).ok()?;
    let Holder { pid, uid, local } = addresses.into_iter().find_map(holder)?;
    let who = pid.map_or("a process".into(), shown);
    Some(format!("{who} of user {uid} listens on {local}"))
}

/// The path with its directory resolved, so that links to the same place compare equal.
pub(super) fn real(address: &Address) -> Option<PathBuf> {
    let Address::Unix(path) = address else {
        return None;
    };
    let directory = fs::canonicalize(path.parent()?).ok()?;
    Some(directory.join(path.file_name()?))
}

/// What prevents a socket at this path.
fn obstacle(path: &Path) -> Option<String> {
    let directory = path.parent().unwrap_or(path);
    in_the_way_to(directory).or_else(|| {
        let there = fs::symlink_metadata(path).ok()?;
        let path = path.display();
        (!there.file_type().is_socket()).then(|| {
            format!("{path} exists and is not a socket; remove it, or choose another path")
        })
    })
}

fn in_the_way_to(directory: &Path) -> Option<String> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(there) if !there.is_dir() => {
            Some(format!("{shown} is not a directory; choose another path"))
        }
        Ok(_) => {
            let may = Access::WRITE_OK | Access::EXEC_OK;
            let refused = accessat(CWD, directory, may, AtFlags::EACCESS).err()?;
            (refused.kind() == ErrorKind::PermissionDenied).then(|| {
                format!(
                    "user {} may not write to {shown}; change its permissions, or choose another \
                     directory",
                    user()
                )
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!(
            "the directory {shown} does not exist; run `mkdir -p {shown}`"
        )),
        Err(error) => Some(format!("cannot use {shown}: {error}; choose another path")),
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
