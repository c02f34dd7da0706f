//! Checks whether another user or group can reach a file through its directories.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::users;

/// The user or group that wants to reach the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    User(u32),
    /// Every member of the group, except root and our own user.
    Group(u32),
}

/// A directory above a file that the user or group cannot enter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub directory: PathBuf,
    pub mode: u32,
    pub owner: u32,
}

/// The first directory on the path that certainly denies access. If groups decide and the user's groups
/// are not known, the directory counts as open.
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
            // The owner may be another user who is in the group.
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

/// What the directory's access control list says of the user or group; `None` without such a list.
/// Those that the list does not name count as admitted, because their groups may decide.
fn listed(directory: &Path, who: Who) -> Option<bool> {
    let mut list = [0; 4096];
    let length = rustix::fs::getxattr(directory, "system.posix_acl_access", &mut list[..]).ok()?;
    let entries = list.get(4..length)?.chunks_exact(8);
    // An entry has a tag, permissions and an id (linux/posix_acl_xattr.h).
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
            // Every system has this user in /etc/passwd, and it is in none of our groups.
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
