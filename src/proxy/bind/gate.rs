//! Opens the gate in a private directory.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tracing::warn;

use super::advice;
use crate::config::{Config, Runtime};
use crate::gate;
use crate::proxy::error::BindError;
use crate::sys::directory::{PrivateDirectory, ensure_private};
use crate::sys::lock::LockError;
use crate::sys::reach::{Obstacle, Who, obstacle};
use crate::sys::unix::{self, Admission, SocketFile};

/// A gate that is bound and not served yet.
#[derive(Debug)]
pub(in crate::proxy) struct BoundGate {
    pub settings: gate::GateSettings,
    pub listener: UnixListener,
    pub file: SocketFile,
    /// Declared after `file`, so that it is removed after it.
    pub directory: Option<Arc<PrivateDirectory>>,
}

/// Binds the gate. If no backend is claimed, there is no gate, and no directory is made for it.
pub(in crate::proxy) fn bind_gate(config: &Config) -> Result<Option<BoundGate>, BindError> {
    let Some(settings) = config.gate.as_ref().filter(|_| config.is_claimed()) else {
        return Ok(None);
    };
    let (path, directory) = place(settings, &config.runtime)?;
    let cannot = |error: LockError| BindError::Gate {
        path: path.clone(),
        source: advice::of_path(error, &path),
    };
    let bound = match unix::bind(&path, &settings.access(), settings.backlog()) {
        // Only root may give a file to any group. Every user may set an access control list.
        Err(LockError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            unix::bind(&path, &settings.list(), settings.backlog())
        }
        bound => bound,
    };
    let unix::Bound {
        listener,
        file,
        admission,
    } = bound.map_err(cannot)?;
    let listener = UnixListener::from_std(listener).map_err(|error| cannot(error.into()))?;
    warn_if_open(&path, admission);
    warn_if_unreachable(&path, settings);
    Ok(Some(BoundGate {
        settings: settings.clone(),
        listener,
        file,
        directory,
    }))
}

/// The gate's path, and its directory if we have to remove it.
fn place(
    settings: &gate::GateSettings,
    runtime: &Runtime,
) -> Result<(PathBuf, Option<Arc<PrivateDirectory>>), BindError> {
    if !settings.path.is_absolute() {
        let directory = Arc::new(runtime_directory(runtime)?);
        return Ok((directory.path().join(&settings.path), Some(directory)));
    }
    let is_for_others = !settings.allow_uids.is_empty() || !settings.allow_gids.is_empty();
    let mode = match is_for_others {
        // Other users need to reach the gate, but not to list the directory.
        true => 0o711,
        false => 0o700,
    };
    private_parent(&settings.path, mode)?;
    Ok((settings.path.clone(), None))
}

/// Checks the directory of a socket at an absolute path, and creates it with `mode` if it does not
/// exist.
pub(super) fn private_parent(path: &Path, mode: u32) -> Result<(), BindError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match ensure_private(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            drop(private_directory(parent, mode)?);
            Ok(())
        }
        checked => checked.map_err(|error| BindError::directory(parent, error)),
    }
}

pub(super) fn runtime_directory(runtime: &Runtime) -> Result<PrivateDirectory, BindError> {
    if let Some(path) = &runtime.directory {
        return private_directory(path, 0o700);
    }
    let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let Some(users) = users else {
        return PrivateDirectory::fresh()
            .map_err(|error| BindError::directory(&std::env::temp_dir(), error));
    };
    let path = Path::new(&users).join("vestibule");
    PrivateDirectory::named(&path, 0o700).map_err(|error| {
        // This happens after `su`, which keeps the variable of the other user.
        let message = format!(
            "{error}; XDG_RUNTIME_DIR names this directory: unset it, or set `runtime.directory` \
             or an absolute `gate.path`"
        );
        BindError::directory(&path, io::Error::new(error.kind(), message))
    })
}

fn private_directory(path: &Path, mode: u32) -> Result<PrivateDirectory, BindError> {
    PrivateDirectory::named(path, mode).map_err(|error| BindError::directory(path, error))
}

fn warn_if_open(path: &Path, admission: Admission) {
    if admission == Admission::AtConnect {
        warn!(
            "every local user can connect to the gate, because the file system of {} has no access \
             control lists; Vestibule refuses users that are not allowed; put the gate on another \
             file system to keep them out",
            path.display()
        );
    }
}

fn warn_if_unreachable(path: &Path, settings: &gate::GateSettings) {
    let sorted = |ids: &HashSet<u32>| {
        let mut ids: Vec<u32> = ids.iter().copied().collect();
        ids.sort_unstable();
        ids
    };
    for uid in sorted(&settings.allow_uids) {
        if let Some(obstacle) = obstacle(path, Who::User(uid)) {
            warn_of(
                &obstacle,
                &format!("user {uid} of gate.allow_uids"),
                &format!("u:{uid}"),
            );
        }
    }
    for gid in sorted(&settings.allow_gids) {
        if let Some(obstacle) = obstacle(path, Who::Group(gid)) {
            warn_of(
                &obstacle,
                &format!("group {gid} of gate.allow_gids"),
                &format!("g:{gid}"),
            );
        }
    }
}

fn warn_of(obstacle: &Obstacle, who: &str, entry: &str) {
    let Obstacle {
        directory,
        mode,
        owner,
    } = obstacle;
    let directory = directory.display();
    warn!(
        "{who} cannot reach the gate: the directory {directory} (mode {mode:04o}, owner {owner}) \
         denies access; run `setfacl -m {entry}:x {directory}` or `chmod o+x {directory}`, or \
         choose a `gate.path` in another directory"
    );
}
