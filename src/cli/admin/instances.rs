//! Finds the running Vestibules of this user.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use tokio::net::UnixStream;
use vestibule::Address;

use super::super::{Exit, Failure};

/// A running Vestibule, and its process id where the kernel tells it.
struct Instance {
    path: PathBuf,
    pid: Option<i32>,
}

/// The admin socket of the only running Vestibule.
pub(super) async fn only() -> Result<Address, Failure> {
    let directories = directories();
    let mut running = Vec::new();
    for path in directories.iter().flat_map(|it| sockets(it)) {
        // A killed process leaves its socket.
        if let Ok(socket) = UnixStream::connect(&path).await {
            let pid = socket.peer_cred().ok().and_then(|it| it.pid());
            running.push(Instance { path, pid });
        }
    }
    match &running[..] {
        [only] => Ok(Address::Unix(only.path.clone())),
        [] => {
            let directories = directories.iter().map(|it| it.display().to_string());
            let directories = directories.collect::<Vec<_>>().join(" or ");
            Err(Failure {
                error: anyhow!(
                    "no running Vestibule in {directories}; start one, or name its admin API with \
                     --admin (its log says `admin API at …` at the start)"
                ),
                exit: Exit::Failed,
            })
        }
        several => {
            let shown: Vec<String> = several.iter().map(Instance::shown).collect();
            Err(Failure::usage(anyhow!(
                "several Vestibules are running; choose one with --admin: {}",
                shown.join(", ")
            )))
        }
    }
}

impl Instance {
    fn shown(&self) -> String {
        match self.pid {
            Some(pid) => format!("unix:{} (process {pid})", self.path.display()),
            None => format!("unix:{}", self.path.display()),
        }
    }
}

fn directories() -> Vec<PathBuf> {
    let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let users = users.map(|path| PathBuf::from(path).join("vestibule"));
    let mut all: Vec<PathBuf> = users.into_iter().collect();
    let system = PathBuf::from("/run/vestibule");
    if !all.contains(&system) {
        all.push(system);
    }
    all
}

/// The admin sockets in a directory, by name.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|it| it.to_str());
            let stem = name.and_then(|it| it.strip_suffix(".sock"));
            stem.is_some_and(|it| it == "admin" || it.starts_with("admin-"))
        })
        .collect();
    sockets.sort();
    sockets
}
