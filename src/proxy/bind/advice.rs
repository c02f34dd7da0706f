//! Advice for an address that cannot be bound.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

use crate::address::LONGEST_UNIX_PATH;
use crate::proxy::error::PathError;
use crate::sys::listeners::{Holder, holder};
use crate::sys::lock::LockError;
use crate::sys::process::shown;
use crate::sys::tcp::{first_unprivileged, unknown_name};

/// The system's error for a TCP address, with advice.
pub(super) fn of_port(error: io::Error, address: SocketAddr) -> PathError {
    let port = address.port();
    let advice = match error.kind() {
        ErrorKind::AddrInUse => in_use(address),
        ErrorKind::PermissionDenied if port < first_unprivileged() => format!(
            "ports below {} need privileges; choose a higher port, run `setcap \
             cap_net_bind_service=+ep` on the program, or set \
             `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the systemd unit",
            first_unprivileged()
        ),
        ErrorKind::AddrNotAvailable => format!(
            "this machine does not have the address {}; use one that `ip addr` shows, or 0.0.0.0 \
             or [::] for all",
            address.ip()
        ),
        _ => return PathError::Io(error),
    };
    with(error, &advice)
}

/// The error for a name that has no address, with advice.
pub(super) fn of_name(error: io::Error, host: &str) -> PathError {
    with(error, &unknown_name(host))
}

fn in_use(address: SocketAddr) -> String {
    let port = address.port();
    match holder(address) {
        Some(Holder { pid: Some(pid), .. }) if pid == std::process::id() => {
            "another listener of this configuration uses it; `[::]` also serves IPv4".into()
        }
        Some(Holder {
            pid: Some(pid),
            uid,
            local,
        }) => format!(
            "{} of user {uid} listens on {local}; stop that process, or choose another port",
            shown(pid)
        ),
        Some(Holder { uid, local, .. }) => format!(
            "a process of user {uid} listens on {local}; run `ss -ltnp 'sport = :{port}'` as root \
             to see which; stop it, or choose another port"
        ),
        None => format!(
            "run `ss -tanp 'sport = :{port}'` to see which process uses it; stop it, \
         or choose another port"
        ),
    }
}

/// The system's error for the path of a Unix socket, with advice.
pub(super) fn of_path(error: LockError, path: &Path) -> PathError {
    let LockError::Io(error) = error else {
        return error.into();
    };
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    let length = path.as_os_str().len();
    let advice = match error.kind() {
        _ if length > LONGEST_UNIX_PATH => format!(
            "the path has {length} bytes, and the path of a Unix socket is limited to \
             {LONGEST_UNIX_PATH}; choose a shorter directory"
        ),
        ErrorKind::NotFound => {
            format!("the directory {directory} does not exist; run `mkdir -p {directory}`")
        }
        ErrorKind::NotADirectory => format!("{directory} is not a directory; choose another path"),
        ErrorKind::ReadOnlyFilesystem => {
            format!("{directory} is on a read-only file system; choose another directory")
        }
        // Only for the system's own error: our errors already say what to do.
        ErrorKind::PermissionDenied if error.raw_os_error().is_some() => format!(
            "user {} may not write to {directory}; change its permissions, or choose another \
             directory",
            rustix::process::geteuid().as_raw()
        ),
        _ => return PathError::Io(error),
    };
    with(error, &advice)
}

fn with(error: io::Error, advice: &str) -> PathError {
    PathError::Io(io::Error::new(error.kind(), format!("{error}: {advice}")))
}
