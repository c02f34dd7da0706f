//! Reads facts about other processes from /proc.

use std::fs;

/// The name of a process, for messages.
pub(crate) fn name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    // Escaped, because a process chooses its own name.
    Some(name.trim_end().escape_debug().to_string())
}

/// A process id for messages, with the name if it is known.
pub(crate) fn shown(pid: u32) -> String {
    match name(pid) {
        Some(name) => format!("process {pid} ({name})"),
        None => format!("process {pid}"),
    }
}

/// The supplementary groups of the process that has connected with this user and primary group. `None`
/// if that process cannot be seen.
///
/// SO_PEERGROUPS would return the groups at the time of the connect, but no crate offers it without
/// unsafe code. The process may have ended meanwhile, and another may have its id. That one counts only
/// if it has the same user and group: a user who can start it has its groups anyway. The file is opened
/// once, so all that is read from it is about one process (proc(5)).
pub(crate) fn groups(pid: u32, uid: u32, gid: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap_or_default().split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    // The fields are the real, effective, saved and file system id. The kernel reported the effective
    // one.
    let is_effective = |key, id| ids(key).get(1) == Some(&id);
    let is_it = is_effective("Uid:", uid) && is_effective("Gid:", gid);
    is_it.then(|| ids("Groups:"))
}

#[cfg(test)]
mod tests {
    use rustix::process::{getegid, geteuid, getgroups};

    use super::*;

    #[test]
    fn groups_are_returned_only_if_the_user_and_group_match() {
        let (pid, uid, gid) = (std::process::id(), geteuid().as_raw(), getegid().as_raw());
        let mut expected: Vec<u32> = getgroups()
            .expect("ours")
            .iter()
            .map(|it| it.as_raw())
            .collect();
        let mut seen = groups(pid, uid, gid).expect("ours");
        expected.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(groups(pid, uid + 1, gid), None);
        assert_eq!(groups(pid, uid, gid + 1), None);
        assert_eq!(groups(u32::MAX, uid, gid), None);
    }
}
