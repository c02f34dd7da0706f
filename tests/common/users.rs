//! Other users of this machine: a test that runs as root can act as any of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
use tempfile::TempDir;

use super::soon;

/// `nobody` on most systems; neither root nor the user of the test.
pub const STRANGER: u32 = 65_534;

/// A directory that every user may enter and only this user may change.
pub fn enterable() -> Arc<TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("ours");
    Arc::new(directory)
}

/// Only root can act as another user. A test that is silently skipped would be worse than none.
pub fn require_root() {
    assert!(geteuid().is_root(), "this test must run as root");
}

/// The result of `work` when another user runs it.
pub async fn as_user<T: Send + 'static>(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    // On Linux a thread has its own credentials, and these end with the thread.
    let (done, is_done) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        become_user(uid, gid);
        let _ = done.send(work());
    });
    let done = soon("the work of a user", is_done).await.expect("no panic");
    thread.join().expect("no panic");
    done
}

pub fn become_user(uid: u32, gid: u32) {
    set_thread_groups(&[]).expect("root may");
    set_thread_gid(Gid::from_raw(gid)).expect("root may");
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid).expect("root may");
}
