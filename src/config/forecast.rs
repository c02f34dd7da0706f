//! What would keep this process, were it to start now, from binding an address of the configuration.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::lines::Place;
use super::problem::Problem;
use super::reader::Table;
use crate::address::Address;
use crate::sys::listeners::{Holder, holder};
use crate::sys::process::shown;
use crate::sys::tcp::{self, Whereabouts};

/// What is known when the text has been read, and hosts that are looked up when somebody asks: a
/// name server that does not answer must not hold up a start or a reload.
#[derive(Clone, Debug, Default)]
pub(super) struct Unready {
    pub found: Vec<Problem>,
    pub hosts: Vec<Host>,
    asked: OnceLock<Vec<Problem>>,
}

/// Where a listener is to be, and where that is written.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub host: String,
    pub place: Place,
}

impl Unready {
    pub(super) fn all(&self) -> &[Problem] {
        self.asked.get_or_init(|| {
            let mut all = self.found.clone();
            all.extend(self.hosts.iter().filter_map(Host::problem));
            all.sort_by_key(|problem| (problem.line, problem.column));
            all
        })
    }
}

impl Host {
    fn problem(&self) -> Option<Problem> {
        let host = &self.host;
        let message = match tcp::whereabouts(host) {
            Whereabouts::Here => return None,
            Whereabouts::Elsewhere => format!(
                "`listener.address`: this machine has no address {host}; `ip addr` shows those that it \
                 has, and 0.0.0.0 or [::] is all"
            ),
            Whereabouts::Unknown(error) => {
                format!("`listener.address`: {error}: {}", tcp::unknown_name(host))
            }
        };
        Some(Problem::at(self.place, &message))
    }
}

/// Says what can be seen, and remembers the host for [`Unready::all`].
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
                    "`listener.address`: user {} may not bind port {port}: ports below {} take root or \
                     CAP_NET_BIND_SERVICE",
                    user(),
                    tcp::first_unprivileged()
                );
                table.warn_at(place, message);
            }
        }
    }
}

/// Who has the port, of those that listen now. It may be the Vestibule that is to be reloaded.
pub(super) fn in_use(address: &Address) -> Option<String> {
    let Address::Tcp { host, port } = address else {
        return None;
    };
    let addresses = tcp::addresses(host, *port).ok()?;
    let Holder { pid, uid, local } = addresses.into_iter().find_map(holder)?;
    let who = pid.map_or("a process".into(), shown);
    Some(format!("{who} of user {uid} listens on {local}"))
}

/// Where a path leads by way of its directory, so that links to one place compare equal.
pub(super) fn real(address: &Address) -> Option<PathBuf> {
    let Address::Unix(path) = address else {
        return None;
    };
    let directory = fs::canonicalize(path.parent()?).ok()?;
    Some(directory.join(path.file_name()?))
}

/// What stands in the way of a socket there.
fn obstacle(path: &Path) -> Option<String> {
    let directory = path.parent().unwrap_or(path);
    in_the_way_to(directory).or_else(|| {
        let there = fs::symlink_metadata(path).ok()?;
        let path = path.display();
        (!there.file_type().is_socket()).then(|| {
            format!(
                "something that is not a socket stands at {path}; remove it or choose another path"
            )
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
                    "user {} may not write to {shown}; choose another directory, or let it",
                    user()
                )
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!(
            "there is no directory {shown}; run `mkdir -p {shown}`"
        )),
        Err(error) => Some(format!(
            "{shown} cannot be used: {error}; choose another path"
        )),
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
