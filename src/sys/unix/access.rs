//! The users and groups that may connect to a Unix socket, as a mode and as an access control list.

/// The permissions of a socket's file. A connect needs write permission (unix(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub mode: u32,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// Users and groups for the access control list, beyond what a mode can express.
    pub users: Vec<u32>,
    pub groups: Vec<u32>,
}

/// What keeps other users out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The kernel: other users cannot connect.
    ByFile,
    /// The file system has no access control lists. Every user can connect, and credentials must be
    /// checked.
    AtConnect,
}

impl Access {
    /// Only the owner and root.
    pub(crate) const PRIVATE: Self = Self {
        mode: 0o600,
        owner: None,
        group: None,
        users: Vec::new(),
        groups: Vec::new(),
    };

    pub(super) fn needs_list(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// The list in the kernel's format (linux/posix_acl_xattr.h): a version, and then entries of tag,
    /// permissions and id. Entries are sorted by tag, and then by id.
    pub(super) fn list(&self) -> Vec<u8> {
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
