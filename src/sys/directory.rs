//! Directories for sockets, which other users cannot change.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// A directory in which no other user can create, replace or remove a file.
///
/// Dropping a fresh one removes it, if it is empty. A named one stays.
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
    /// Uses `path`, and creates it with `mode` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`ensure_private`].
    pub(crate) fn named(path: &Path, mode: u32) -> io::Result<Self> {
        match ensure_private(path) {
            // The directories that exist on the path are good.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(mode).create(path)?;
                ensure_private(path)?;
            }
            checked => checked?,
        }
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::Named,
        })
    }

    /// Creates a new one in the system's directory for temporary files.
    pub(crate) fn fresh() -> io::Result<Self> {
        let name = format!("vestibule-{}", crate::id::Id::random());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let directory = Self {
            path,
            kind: Kind::Fresh,
        };
        ensure_private(&directory.path)?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if self.kind == Kind::Fresh {
            // Fails if another program put a file there; then that program has to remove it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Checks that only this user and root can change or replace `path` and what it contains. A user who
/// can rename a directory above it could put another one in its place, and answer the clients there.
///
/// # Errors
///
/// Names the directory that others can change. [`io::ErrorKind::NotFound`] if a directory is missing
/// and all above it are good.
pub(crate) fn ensure_private(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let mut here = PathBuf::from("/");
    let mut rest: Vec<OsString> = names(&path);
    let mut links = 0;
    ensure_ours(&here, &path, &fs::metadata(&here)?)?;
    while let Some(name) = rest.pop() {
        if name == ".." {
            // `here` contains no links, so this is the directory where the kernel would go.
            here.pop();
            continue;
        }
        let entry = here.join(name);
        let metadata = fs::symlink_metadata(&entry)?;
        ensure_kept(&here, &path, &metadata)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(denied("its path has too many symbolic links".into()));
            }
            let target = fs::read_link(&entry)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            rest.extend(names(&target));
            continue;
        }
        if !metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        ensure_ours(&entry, &path, &metadata)?;
        here = entry;
    }
    let metadata = fs::metadata(&here)?;
    match is_shared(&metadata) {
        true => Err(shared(&here, &path, &metadata)),
        false => Ok(()),
    }
}

/// The components of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path
        .components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
    names.collect()
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Checks the owner: an owner can change a directory whatever its mode is.
fn ensure_ours(directory: &Path, of: &Path, metadata: &Metadata) -> io::Result<()> {
    match metadata.uid() {
        uid if is_trusted(uid) => Ok(()),
        uid => Err(denied(format!(
            "{} belongs to another user ({uid}); choose a directory that belongs to user {} or root",
            subject(directory, of),
            rustix::process::geteuid().as_raw()
        ))),
    }
}

/// Checks that others cannot rename or remove an entry. In a directory that others can write to, the
/// sticky bit protects the entries of trusted users.
fn ensure_kept(directory: &Path, of: &Path, entry: &Metadata) -> io::Result<()> {
    let metadata = fs::metadata(directory)?;
    let is_kept = metadata.mode() & 0o1000 != 0 && is_trusted(entry.uid());
    match is_shared(&metadata) && !is_kept {
        true => Err(shared(directory, of, &metadata)),
        false => Ok(()),
    }
}

/// Whether others can write to it. With an access control list, the group bits of the mode show its
/// mask.
fn is_shared(metadata: &Metadata) -> bool {
    metadata.mode() & 0o022 != 0
}

/// The message recommends no complete mode: it could lock out users who may enter.
fn shared(directory: &Path, of: &Path, metadata: &Metadata) -> io::Error {
    let mode = metadata.mode() & 0o7777;
    let what_to_do = match mode & 0o1000 {
        0 => format!(
            "run `chmod go-w {}`, or choose another directory",
            directory.display()
        ),
        // A directory such as /tmp, whose mode is as intended.
        _ => "choose another directory, such as a private one inside it".into(),
    };
    let what = match directory == of {
        true => format!("other users can write to it (mode {mode:04o})"),
        false => format!(
            "other users can write to the directory above it, {} (mode {mode:04o})",
            directory.display()
        ),
    };
    denied(format!("{what}; {what_to_do}"))
}

fn subject(directory: &Path, of: &Path) -> String {
    match directory == of {
        true => "it".into(),
        false => format!("the directory above it, {},", directory.display()),
    }
}

fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The kernel's limit (path_resolution(7)).
const MOST_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    fn refusal(path: &Path) -> String {
        ensure_private(path).expect_err("refused").to_string()
    }

    #[test]
    fn an_ancestor_that_others_can_change_is_refused_and_named() {
        let parent = tempfile::tempdir().expect("a directory");
        let above = parent.path().join("above");
        let path = above.join("run/vestibule");
        fs::create_dir_all(&path).expect("a directory");
        ensure_private(&path).expect("all is ours");
        for bits in [0o777, 0o775, 0o757] {
            mode(&above, bits);
            let said = refusal(&path);
            assert!(
                said.contains(&format!("{} (mode 0{bits:o})", above.display())),
                "{said}"
            );
            assert!(said.contains("chmod go-w"), "{said}");
        }
        mode(&above, 0o1777);
        ensure_private(&path).expect("the sticky bit keeps what is ours");
        chown(&above, Some(STRANGER), None).expect("root may");
        mode(&above, 0o755);
        assert!(refusal(&path).contains(&format!("another user ({STRANGER})")));
    }

    #[test]
    fn the_sticky_bit_is_no_excuse_for_the_directory_itself() {
        let parent = tempfile::tempdir().expect("a directory");
        mode(parent.path(), 0o1777);
        let said = refusal(parent.path());
        assert!(
            said.contains("other users can write to it (mode 1777)"),
            "{said}"
        );
    }

    #[test]
    fn a_link_is_followed_and_in_a_shared_directory_must_be_ours() {
        let parent = tempfile::tempdir().expect("a directory");
        let shared = parent.path().join("shared");
        let real = parent.path().join("real");
        fs::create_dir(&shared).expect("a directory");
        fs::create_dir(&real).expect("a directory");
        mode(&shared, 0o1777);
        let link = shared.join("link");
        symlink("../real", &link).expect("a link");
        ensure_private(&link).expect("ours all the way");
        mode(&real, 0o777);
        assert!(refusal(&link).contains("other users can write to"));
        mode(&real, 0o700);
        std::os::unix::fs::lchown(&link, Some(STRANGER), None).expect("root may");
        assert!(refusal(&link).contains(&shared.display().to_string()));
        symlink("loop", parent.path().join("loop")).expect("a link");
        assert!(refusal(&parent.path().join("loop")).contains("too many symbolic links"));
    }

    /// The user nobody on most systems. These tests run as root.
    const STRANGER: u32 = 65_534;

    #[test]
    fn a_named_directory_is_made_private_and_stays() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("run/vestibule");
        drop(PrivateDirectory::named(&path, 0o700).expect("a directory"));
        assert_eq!(
            fs::metadata(&path).expect("a directory").mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        fs::set_permissions(parent.path(), Permissions::from_mode(0o770)).expect("a directory");
        let refused = PrivateDirectory::named(parent.path(), 0o700);
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
