//! Unix listeners that come to their path without a gap and never take a live one's place.
//!
//! ```text
//! lock PATH.lock ─► remove a stale PATH ─► bind ─► chmod ─► listen
//! ```
//!
//! The lock says whether the path is free: nothing is probed, so there is no window between a
//! probe and its use. Whoever else binds the path in between makes the bind fail, and nobody can
//! connect before the mode is set, because the socket does not listen before.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::lock::{LockError, PathLock};

/// A listening Unix socket and the right to its path.
#[derive(Debug)]
pub(crate) struct Bound {
    pub listener: UnixListener,
    pub file: SocketFile,
}

/// A socket's file. Dropping it removes the file, if it is still ours, and gives up the path.
#[derive(Debug)]
#[must_use]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    _lock: PathLock,
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).ok() == Some(self.identity) {
            // Already gone is as good; anything else leaves a stale file that the next start
            // takes over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path` with `mode`, and lets `group` own the file if one is given.
///
/// # Errors
///
/// [`LockError::Held`] when a live process has the path. A path at which something other than a
/// socket stands is refused, not replaced.
pub(crate) fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Bound, LockError> {
    let lock = PathLock::acquire(path)?;
    remove_stale(path)?;
    let listener = listen(path, mode, group)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
        _lock: lock,
    };
    Ok(Bound { listener, file })
}

fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    // Not std's `UnixListener::bind`: it listens at once, before the mode could be set.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if let Some(group) = group {
        chownat(
            CWD,
            path,
            None::<Uid>,
            Some(Gid::from_raw(group)),
            AtFlags::empty(),
        )?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket stands there; remove it or choose another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_socket_has_its_mode_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        let bound = bind(&path, 0o660, None).expect("a socket");
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o660);
        assert_eq!(entries(directory.path()), ["gate.sock", "gate.sock.lock"]);
        UnixStream::connect(&path).expect("a connection");
        drop(bound);
        assert!(entries(directory.path()).is_empty());
    }

    #[test]
    fn a_live_socket_is_respected_and_a_stale_one_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        // What a killed process leaves: the files, without the lock.
        drop(UnixListener::bind(&path).expect("a socket"));
        fs::write(directory.path().join("gate.sock.lock"), "1\n").expect("a file");
        let bound = bind(&path, 0o600, None).expect("the stale path");
        assert!(matches!(
            bind(&path, 0o600, None),
            Err(LockError::Held(Some(_)))
        ));
        UnixStream::connect(&path).expect("the first one still serves");
        drop(bound);
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes.txt");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(bind(&path, 0o600, None), Err(LockError::Io(_))));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
    }

    #[test]
    fn the_file_of_a_successor_is_not_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("front.sock");
        let bound = bind(&path, 0o600, None).expect("a socket");
        fs::remove_file(&path).expect("a file");
        let _successor = UnixListener::bind(&path).expect("a socket");
        drop(bound);
        assert_eq!(entries(directory.path()), ["front.sock"]);
    }
}
