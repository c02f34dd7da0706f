//! Whether another user or group can get to a file, as far as its directories say so.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::users;

/// Who is to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    User(u32),
    /// Anybody who is in it, but for root and us.
    Group(u32),
}

/// A directory above a file that somebody cannot enter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub directory: PathBuf,
    pub mode: u32,
    pub owner: u32,
}

/// The first directory on the way to `path` that keeps them out for certain: where groups decide, and a
/// user's are not known, it is taken for open.
pub(crate) fn obstacle(path: &Path, who: Who) -> Option<Obstacle> {
    let directory = fs::canonicalize(path.parent()?).ok()?;
    let groups = match who {
        Who::User(uid) => users::groups_of(uid),
        Who::Group(gid) => Some(vec![gid]),
    };
    let mut above: Vec<&Path> = directory.ancestors().collect();
    above.reverse();
    above.into_iter().find_map(|directory| {
        let metadata = fs::metadata(directory).ok()?;
        let found = Obstacle {
            directory: directory.to_owned(),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
        };
        let is_owner = match who {
            Who::User(uid) => metadata.uid() == uid,
            // Another user may be in the group, and the directory that user's own.
            Who::Group(_) => ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()),
        };
        let enters = who == Who::User(0)
            || match listed(directory, who) {
                Some(is_listed) => is_listed,
                None if is_owner => found.mode & 0o100 != 0,
                None => match &groups {
                    Some(groups) if groups.contains(&metadata.gid()) => found.mode & 0o010 != 0,
                    Some(_) => found.mode & 0o001 != 0,
                    None => found.mode & 0o011 != 0,
                },
            };
        (!enters).then_some(found)
    })
}

/// What the directory's access control list says of them, if it has one that names somebody: those whom it
/// does not name are taken for let in, since groups may decide.
fn listed(directory: &Path, who: Who) -> Option<bool> {
    let mut list = [0; 4096];
    let length = rustix::fs::getxattr(directory, "system.posix_acl_access", &mut list[..]).ok()?;
    let entries = list.get(4..length)?.chunks_exact(8);
    // Tag, permissions and id (linux/posix_acl_xattr.h).
    let (tag, id) = match who {
        Who::User(uid) => (USER, uid),
        Who::Group(gid) => (GROUP, gid),
    };
    let mine = entries
        .into_iter()
        .find(|entry| entry[..2] == tag.to_le_bytes() && entry[4..] == id.to_le_bytes());
    Some(mine.is_none_or(|entry| entry[2] & 1 != 0))
}

const USER: u16 = 0x02;
const GROUP: u16 = 0x08;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_that_keeps_a_user_out_is_named() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("run/gate.sock");
        let run = parent.path().join("run");
        fs::create_dir(&run).expect("a directory");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        };
        for (above, below, expected) in [
            (0o700, 0o755, Some(parent.path())),
            (0o711, 0o700, Some(&run)),
            (0o711, 0o710, Some(&run)),
            (0o711, 0o711, None),
            (0o755, 0o755, None),
        ] {
            mode(parent.path(), above);
            mode(&run, below);
            // In /etc/passwd of every system, and in no group of ours.
            for who in [
                Who::User(users::user("nobody").expect("nobody")),
                Who::Group(64_999),
            ] {
                let found = obstacle(&path, who);
                let expected = expected.map(Path::to_owned);
                assert_eq!(found.map(|it| it.directory), expected, "{who:?}");
            }
            let root = Who::User(0);
            assert_eq!(obstacle(&path, root), None, "root is kept out of nothing");
        }
    }
}
