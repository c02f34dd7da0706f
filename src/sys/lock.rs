//! A lock on a path, which the kernel releases when the process ends in any way.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The exclusive right to a path, held with a locked file beside it (`PATH.lock`).
///
/// Dropping it removes the lock file and releases the lock. A killed process leaves the file, but not
/// the lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct PathLock {
    path: PathBuf,
    _file: File,
}

impl PathLock {
    /// Locks `path`, or says which process has it.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        for _ in 0..ROUNDS {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            // The last holder may have removed the file between the two steps. A lock on a file without
            // a name would exclude nobody.
            if is_still_at(&file, &path)? {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(Self { path, _file: file });
            }
        }
        Err(LockError::Held(None))
    }
}

/// Opens or creates the lock file. If others can write to the directory, they may have put a file
/// there: they could hold its lock for ever, or it could be a link to a file that would then be
/// emptied.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Without NOFOLLOW, a link would open a file that is never the one at the path. Without
        // NONBLOCK, a FIFO would block.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let file = file.map_err(|error| match fs::symlink_metadata(path) {
        Ok(there) => foreign(path, &there).unwrap_or(error),
        Err(_) => error,
    })?;
    match foreign(path, &file.metadata()?) {
        Some(error) => Err(error),
        None => Ok(file),
    }
}

/// Why a file cannot be trusted as a lock file. The owner of the directory is trusted.
fn foreign(path: &Path, there: &Metadata) -> Option<io::Error> {
    let directory = path.parent().and_then(|it| fs::metadata(it).ok());
    let owner = directory.map_or(0, |it| it.uid());
    let ours = rustix::process::geteuid().as_raw();
    let what = if !there.is_file() {
        "is not a regular file".to_owned()
    } else if there.nlink() > 1 {
        "has a second name (hard link)".to_owned()
    } else if ![0, ours, owner].contains(&there.uid()) {
        format!("belongs to another user ({})", there.uid())
    } else {
        return None;
    };
    let message = format!(
        "its lock file {} {what}; remove it, or choose a directory that others cannot write to",
        path.display()
    );
    Some(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // While the lock is held, nobody else removes or replaces the file. If it cannot be removed, it
        // stays without a lock, which does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A round fails only if a holder ends between two of our steps.
const ROUNDS: usize = 100;

/// The process id that the holder wrote. `None` if it has not written it yet.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Why a path could not be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// A live process has the lock. Its process id, if it is known.
    #[error("held by {}", .0.map_or("another process".into(), |pid| format!("process {pid}")))]
    Held(Option<u32>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_live_holder_is_named_and_a_gone_one_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        let first = PathLock::acquire(&path).expect("the lock");
        match PathLock::acquire(&path) {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a held lock, got {other:?}"),
        }
        drop(first);
        assert_eq!(
            fs::read_dir(directory.path()).expect("a directory").count(),
            0
        );
        drop(PathLock::acquire(&path).expect("the lock again"));
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        let link = directory.path().join("gate.sock.lock");
        std::os::unix::fs::symlink("/dev/null", link).expect("a link");
        assert!(matches!(PathLock::acquire(&path), Err(LockError::Io(_))));
    }

    #[test]
    fn a_lock_file_of_another_user_or_with_a_second_name_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        let file = directory.path().join("gate.sock.lock");
        let refused = || match PathLock::acquire(&path) {
            Err(LockError::Io(error)) => error.to_string(),
            other => panic!("expected a refusal, got {other:?}"),
        };
        fs::write(&file, "precious").expect("a file");
        fs::hard_link(&file, directory.path().join("other")).expect("a link");
        assert!(refused().contains("a second name"), "{}", refused());
        fs::remove_file(directory.path().join("other")).expect("a file");
        std::os::unix::fs::chown(&file, Some(65_534), None).expect("root may");
        assert!(refused().contains("another user (65534)"), "{}", refused());
        assert_eq!(fs::read_to_string(&file).expect("a file"), "precious");
    }

    #[test]
    fn paths_that_are_not_utf8_have_separate_locks() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = [&b"gate\xff.sock"[..], b"gate\xfe.sock"];
        let paths = names.map(|name| directory.path().join(OsStr::from_bytes(name)));
        let _locks = paths
            .each_ref()
            .map(|path| PathLock::acquire(path).expect("the lock"));
        let name = OsStr::from_bytes(b"gate\xff.sock.lock");
        assert!(directory.path().join(name).exists());
    }

    #[test]
    fn a_stale_lock_file_is_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gate.sock");
        fs::write(directory.path().join("gate.sock.lock"), "4194305\n").expect("a file");
        drop(PathLock::acquire(&path).expect("the lock"));
    }
}
