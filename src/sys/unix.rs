//! Unix listeners that come to their path without a gap and never take a live one's place.
//!
//! ```text
//! lock PATH.lock ─► does anybody answer? ─► remove a stale PATH ─► bind ─► owner, mode, ACL ─► listen
//! ```
//!
//! The lock keeps other Vestibules out, whatever they are about to do. Other programs take no lock:
//! they are asked by connecting. Whoever else binds the path in between makes the bind fail, and
//! nobody can connect before the mode is set, because the socket does not listen before.

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

use super::listeners::{UnixState, is_bound};
use super::lock::{LockError, PathLock};

/// A listening Unix socket and the right to its path.
#[derive(Debug)]
pub(crate) struct Bound {
    pub listener: UnixListener,
    pub file: SocketFile,
    pub admission: Admission,
}

/// Who may connect: whoever may write to the socket's file (unix(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub mode: u32,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// Beyond what a mode can say, by an access control list.
    pub users: Vec<u32>,
    pub groups: Vec<u32>,
}

/// Who keeps the others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The kernel: they cannot connect.
    ByFile,
    /// The file system has no access control lists. Everybody can connect, and must be asked.
    AtConnect,
}

impl Access {
    /// Nobody but its owner and root.
    pub(crate) const PRIVATE: Self = Self {
        mode: 0o600,
        owner: None,
        group: None,
        users: Vec::new(),
        groups: Vec::new(),
    };

    fn needs_list(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// The list as the kernel takes it (linux/posix_acl_xattr.h): a version, then entries of tag,
    /// permissions and id in the order of their tags, then of their ids.
    fn list(&self) -> Vec<u8> {
        const NO_ID: u32 = u32::MAX;
        let sorted = |ids: &[u32]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let mut entries = vec![(USER_OBJ, READ_WRITE, NO_ID)];
        entries.extend(sorted(&self.users).iter().map(|id| (USER, READ_WRITE, *id)));
        entries.push((GROUP_OBJ, 0, NO_ID));
        entries.extend(
            sorted(&self.groups)
                .iter()
                .map(|id| (GROUP, READ_WRITE, *id)),
        );
        entries.push((MASK, READ_WRITE, NO_ID));
        entries.push((OTHER, 0, NO_ID));
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend(u16::to_le_bytes(tag));
            list.extend(u16::to_le_bytes(permissions));
            list.extend(u32::to_le_bytes(id));
        }
        list
    }
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const READ_WRITE: u16 = 6;

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

    /// Lets these connect, and nobody else but root.
    ///
    /// By a descriptor of the very file: in a directory of others the path may lead elsewhere by now.
    ///
    /// # Errors
    ///
    /// Says which part of it the system refuses.
    pub(crate) fn open_to(&self, access: &Access) -> io::Result<Admission> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::File::from(open(&self.path, flags, Mode::empty())?);
        let there = file.metadata()?;
        if identity(&there) != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        // A descriptor of this kind can be changed by its name in /proc alone.
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
            // Already gone is as good; anything else leaves a stale file that the next start
            // takes over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path`, and lets those of `access` connect, `backlog` of whom may wait to be accepted.
///
/// # Errors
///
/// [`LockError::Held`] when a live process has the path. A path at which something other than a
/// socket stands is refused, not replaced.
pub(crate) fn bind(path: &Path, access: &Access, backlog: i32) -> Result<Bound, LockError> {
    let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
    let lock = PathLock::acquire(path)?;
    remove_stale(path, &address)?;
    // Not std's `UnixListener::bind`: it listens at once, before the mode could be set.
    let socket = stream_socket()?;
    // The file begins with it, less the umask: it is never open to more than it may be.
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

/// Removes what a process that is gone has left.
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

/// Who has a socket open there, if anybody has: the process, where the kernel tells.
fn listening(path: &Path, address: &SocketAddrUnix) -> io::Result<Option<Option<u32>>> {
    let socket = stream_socket()?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => Ok(Some(peer(socket.into()))),
        // Nobody has it open any more, or is about to listen.
        Err(Errno::CONNREFUSED | Errno::NOENT) => {
            Ok(is_bound(path, UnixState::Bound).then_some(None))
        }
        // Another user's, who keeps us out.
        Err(Errno::ACCESS | Errno::PERM) if is_bound(path, UnixState::Listening) => Ok(Some(None)),
        // Its queue is full; or it is a socket of another type, and open.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(Some(None)),
        Err(error) => Err(refused(
            error,
            "find out whether a program uses the existing socket; if none does, remove it",
        )),
    }
}

/// tokio's way to ask, since rustix has no process id for a process of another namespace.
fn peer(socket: std::os::unix::net::UnixStream) -> Option<u32> {
    tokio::runtime::Handle::try_current().ok()?;
    let socket = tokio::net::UnixStream::from_std(socket).ok()?;
    let pid = socket.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

fn identity(there: &Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

/// The kernel lowers it to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(mode: u32) -> Access {
        Access {
            mode,
            ..Access::PRIVATE
        }
    }

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
        let bound = bind(&path, &mode(0o660), BACKLOG).expect("a socket");
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
        let bound = bind(&path, &Access::PRIVATE, BACKLOG).expect("the stale path");
        assert!(matches!(
            bind(&path, &Access::PRIVATE, BACKLOG),
            Err(LockError::Held(Some(_)))
        ));
        UnixStream::connect(&path).expect("the first one still serves");
        drop(bound);
    }

    #[test]
    fn a_socket_that_is_about_to_listen_is_left_to_its_program() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("front.sock");
        let theirs = stream_socket().expect("a socket");
        let address = SocketAddrUnix::new(&path).expect("a short path");
        rustix::net::bind(&theirs, &address).expect("a free path");
        let refused = bind(&path, &Access::PRIVATE, 1);
        assert!(matches!(refused, Err(LockError::Held(None))), "{refused:?}");
        assert!(!is_bound(&path, UnixState::Listening));
        rustix::net::listen(&theirs, 1).expect("a bound socket");
        assert!(is_bound(&path, UnixState::Listening) && !is_bound(&path, UnixState::Bound));
        drop(theirs);
        assert!(bind(&path, &Access::PRIVATE, 1).is_ok(), "nobody has it");
    }

    #[tokio::test]
    async fn a_live_socket_of_a_program_that_takes_no_lock_is_left_to_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let theirs = UnixListener::bind(&path).expect("a socket");
        match bind(&path, &Access::PRIVATE, BACKLOG) {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a held path, got {other:?}"),
        }
        assert!(theirs.accept().is_ok(), "it was asked");
        let _client = UnixStream::connect(&path).expect("it still serves");
        assert_eq!(entries(directory.path()), ["app.sock"], "no lock is left");
        fs::remove_file(&path).expect("a socket");
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        let refused = bind(&path, &Access::PRIVATE, BACKLOG);
        assert!(matches!(refused, Err(LockError::Held(None))));
    }

    #[test]
    fn a_list_lets_its_users_and_groups_in_and_keeps_the_mode_from_the_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        let access = Access {
            users: vec![1002, 1001, 1002],
            groups: vec![2001],
            ..Access::PRIVATE
        };
        let bound = bind(&path, &access, BACKLOG).expect("a socket");
        assert_eq!(bound.admission, Admission::ByFile, "no ACLs in {path:?}");
        let file = fs::metadata(&path).expect("a file");
        assert_eq!(file.mode() & 0o777, 0o660, "the group's bits are the mask");
        let mut list = [0; 256];
        let length = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut list[..]);
        let list = &list[..length.expect("a list")];
        assert_eq!(list, access.list());
        assert_eq!(list.len(), 4 + 8 * 7, "each of them once");
    }

    #[test]
    fn a_socket_is_given_to_its_owner_and_group() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("front.sock");
        let access = Access {
            mode: 0o640,
            owner: Some(65_534),
            group: Some(65_533),
            ..Access::PRIVATE
        };
        let bound = bind(&path, &access, BACKLOG).expect("root may");
        let there = fs::metadata(&path).expect("a file");
        assert_eq!((there.uid(), there.gid()), (65_534, 65_533));
        assert_eq!(there.mode() & 0o777, 0o640);
        bound.file.open_to(&mode(0o600)).expect("changed");
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes.txt");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(
            bind(&path, &Access::PRIVATE, BACKLOG),
            Err(LockError::Io(_))
        ));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
    }

    #[test]
    fn the_file_of_a_successor_is_not_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("front.sock");
        let bound = bind(&path, &Access::PRIVATE, BACKLOG).expect("a socket");
        fs::remove_file(&path).expect("a file");
        let _successor = UnixListener::bind(&path).expect("a socket");
        drop(bound);
        assert_eq!(entries(directory.path()), ["front.sock"]);
    }
}
