//! Unix listeners that appear at their path ready for use, and that never replace a live socket.
//!
//! ```text
//! lock PATH.lock ─► does anybody answer? ─► remove a stale PATH ─► bind ─► owner, mode, ACL ─► listen
//! ```
//!
//! The lock excludes other Vestibules. Other programs take no lock, so a connect finds out whether one
//! listens. If a program binds the path between the steps, our bind fails. Nobody can connect before
//! the mode is set, because the socket listens only after that.

mod access;
#[cfg(test)]
mod tests;

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::fs::{chmodat, chownat, fchmod, open, setxattr};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

pub(crate) use self::access::{Access, Admission};
use super::listeners::{UnixState, is_bound};
use super::lock::{LockError, PathLock};

/// A listening Unix socket, and the right to its path.
#[derive(Debug)]
pub(crate) struct Bound {
    pub listener: UnixListener,
    pub file: SocketFile,
    pub admission: Admission,
}

/// The file of a socket. Dropping it removes the file if it is still ours, and releases the path.
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

    /// Lets these users connect, and no others except root.
    ///
    /// It works on a descriptor of the file itself: in a directory of other users, the path may lead to
    /// another file by now.
    ///
    /// # Errors
    ///
    /// Says which change the system refuses.
    pub(crate) fn open_to(&self, access: &Access) -> io::Result<Admission> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::File::from(open(&self.path, flags, Mode::empty())?);
        let there = file.metadata()?;
        if identity(&there) != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        // An O_PATH descriptor can be changed only by its name in /proc.
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let owner = access.owner.filter(|it| *it != there.uid());
        let group = access.group.filter(|it| *it != there.gid());
        if owner.is_some() || group.is_some() {
            let (uid, gid) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
            chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)
                .map_err(|error| not_given(error, &Owner { owner, group }))?;
        }
        let chmod = |mode| match mode == there.mode() & 0o7777 {
            true => Ok(()),
            false => chmodat(CWD, &name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(|error| refused(error, &format!("set its mode to {mode:04o}"))),
        };
        chmod(access.mode)?;
        if !access.needs_list() {
            return Ok(Admission::ByFile);
        }
        match setxattr(
            &name,
            "system.posix_acl_access",
            &access.list(),
            XattrFlags::empty(),
        ) {
            Ok(()) => Ok(Admission::ByFile),
            Err(Errno::OPNOTSUPP) => {
                chmod(0o666)?;
                Ok(Admission::AtConnect)
            }
            Err(error) => Err(refused(error, "set its access control list")),
        }
    }
}

fn refused(error: Errno, what: &str) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn not_given(error: Errno, to: &Owner) -> io::Error {
    let refused = refused(error, &format!("give it to {to}"));
    if error != Errno::PERM {
        return refused;
    }
    let us = rustix::process::geteuid().as_raw();
    let advice = match to.owner {
        Some(_) => "only root may set another owner; leave `owner` out, or start as root",
        None => {
            "a user may set only its own groups; add the user to the group (`usermod -aG GROUP \
             USER`, then log in again), or use a group that `id` shows"
        }
    };
    io::Error::new(
        refused.kind(),
        format!("{refused}; this process runs as user {us}; {advice}"),
    )
}

struct Owner {
    owner: Option<u32>,
    group: Option<u32>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.owner, self.group) {
            (Some(owner), Some(group)) => write!(f, "user {owner} and group {group}"),
            (Some(owner), None) => write!(f, "user {owner}"),
            (None, group) => write!(f, "group {}", group.unwrap_or_default()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| identity(&there) == self.identity) {
            // If this fails, the file was removed already, or it stays as a stale file and the next
            // start takes it over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path`, lets the users of `access` connect, and listens with this backlog.
///
/// # Errors
///
/// [`LockError::Held`] if a live process has the path. A file at the path that is not a socket is
/// refused, and not replaced.
pub(crate) fn bind(path: &Path, access: &Access, backlog: i32) -> Result<Bound, LockError> {
    let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
    let lock = PathLock::acquire(path)?;
    remove_stale(path, &address)?;
    // std's `UnixListener::bind` listens at once, before the mode can be set.
    let socket = stream_socket()?;
    // The file is created with this mode, less the umask. So its permissions are never too wide.
    fchmod(&socket, Mode::from_raw_mode(0o600)).map_err(io::Error::from)?;
    rustix::net::bind(&socket, &address).map_err(io::Error::from)?;
    let there = fs::symlink_metadata(path)?;
    let ours = rustix::process::geteuid().as_raw();
    if !there.file_type().is_socket() || there.uid() != ours {
        return Err(io::Error::other("another file has taken its place").into());
    }
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&there),
        _lock: lock,
    };
    let admission = file.open_to(access)?;
    rustix::net::listen(&socket, backlog).map_err(io::Error::from)?;
    Ok(Bound {
        listener: socket.into(),
        file,
        admission,
    })
}

fn stream_socket() -> io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket)
}

/// Removes the socket of a process that has ended.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), LockError> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if let Some(pid) = listening(path, address)? {
                return Err(LockError::Held(pid));
            }
            Ok(fs::remove_file(path)?)
        }
        Ok(_) => Err(LockError::Io(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is not a socket; remove it, or choose another path",
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process has a socket open at the path. Returns its process id too, if the kernel reports
/// it.
fn listening(path: &Path, address: &SocketAddrUnix) -> io::Result<Option<Option<u32>>> {
    let socket = stream_socket()?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => Ok(Some(peer(socket.into()))),
        // No process has it open any more, or one has bound it and is about to listen.
        Err(Errno::CONNREFUSED | Errno::NOENT) => {
            Ok(is_bound(path, UnixState::Bound).then_some(None))
        }
        // Another user's socket, whose permissions keep us out.
        Err(Errno::ACCESS | Errno::PERM) if is_bound(path, UnixState::Listening) => Ok(Some(None)),
        // Its backlog is full, or it is an open socket of another type.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(Some(None)),
        Err(error) => Err(refused(
            error,
            "find out whether a program uses the existing socket; if none does, remove it",
        )),
    }
}

/// Uses tokio, because rustix cannot represent the missing process id of a process in another
/// namespace.
fn peer(socket: std::os::unix::net::UnixStream) -> Option<u32> {
    tokio::runtime::Handle::try_current().ok()?;
    let socket = tokio::net::UnixStream::from_std(socket).ok()?;
    let pid = socket.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

fn identity(there: &Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

/// The kernel lowers this to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 4096;
