//! A live socket keeps its path, and files that are not ours stay untouched.

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
    // A killed process leaves the files without the lock.
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
