//! The directory of sockets that nobody else can put anything into.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory in which no other user can make, replace or remove a file.
///
/// Dropping a fresh one removes it, if it is empty by then; a named one stays.
#[derive(Debug)]
pub(crate) struct PrivateDirectory {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Named,
    Fresh,
}

impl PrivateDirectory {
    /// Uses `path`, and makes it (mode 0700) if it is not there.
    ///
    /// # Errors
    ///
    /// Refuses a directory of another user and one that others can write to.
    pub(crate) fn named(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        ensure_private(path)?;
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::Named,
        })
    }

    /// Makes a new one under the system's directory for temporary files.
    pub(crate) fn fresh() -> io::Result<Self> {
        let name = format!("vestibule-{}", crate::id::Id::random());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self {
            path,
            kind: Kind::Fresh,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if self.kind == Kind::Fresh {
            // Fails when somebody put a file there, which is theirs to remove.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Fails unless only this user (and root) can replace what is in `path`.
pub(crate) fn ensure_private(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours && metadata.uid() != 0 {
        return Err(denied("it belongs to another user"));
    }
    let others_write = metadata.mode() & 0o022 != 0;
    let sticky = metadata.mode() & 0o1000 != 0;
    if others_write && !sticky {
        return Err(denied(
            "other users can write to it; use a directory of mode 0700",
        ));
    }
    Ok(())
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_named_directory_is_made_private_and_stays() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("run/vestibule");
        drop(PrivateDirectory::named(&path).expect("a directory"));
        assert_eq!(
            fs::metadata(&path).expect("a directory").mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        fs::set_permissions(parent.path(), Permissions::from_mode(0o770)).expect("a directory");
        let refused = PrivateDirectory::named(parent.path());
        assert_eq!(
            refused.err().map(|e| e.kind()),
            Some(io::ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn a_fresh_directory_is_private_and_goes() {
        let directory = PrivateDirectory::fresh().expect("a directory");
        let path = directory.path().to_owned();
        assert_eq!(
            fs::metadata(&path).expect("a directory").mode() & 0o777,
            0o700
        );
        drop(directory);
        assert!(!path.exists());
    }
}
