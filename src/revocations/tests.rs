//! Bounds, damage, and several processes with one file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use super::*;

fn ledger() -> Ledger {
    Ledger::default()
}

fn alice() -> Identity {
    Identity {
        cn: Some("alice".into()),
        ..Identity::default()
    }
}

#[test]
fn a_revocation_is_in_force_until_it_is_removed() {
    let revocations = Revocations::default();
    assert_eq!(revocations.find(&alice(), &[]), None);
    let made = revocations.revoke(&ledger(), "cn:alice").expect("room");
    assert!(made.is_new && !made.is_stored);
    let again = revocations.revoke(&ledger(), "cn:alice").expect("room");
    assert_eq!((again.is_new, &again.revocation), (false, &made.revocation));
    assert_eq!(revocations.find(&alice(), &[]), Some("cn:alice".into()));
    assert_eq!(revocations.remove(Id::random()).expect("no disk"), None);
    let removed = revocations.remove(made.revocation.id).expect("no disk");
    assert_eq!(removed, Some(made.revocation));
    assert_eq!(revocations.find(&alice(), &[]), None);
    assert!(revocations.table.load().is_none());
}

#[test]
fn revocations_are_bounded_and_those_with_wildcards_more_so() {
    let revocations = Revocations::default();
    for number in 0..MOST_PATTERNS {
        let pattern = format!("dns:*.of-{number}.example");
        revocations.revoke(&ledger(), &pattern).expect("room");
    }
    let full = revocations.revoke(&ledger(), "dns:*.example");
    assert!(matches!(
        full,
        Err(RevokeError::Full {
            most: MOST_PATTERNS,
            ..
        })
    ));
    let row = |number: usize| {
        let target = Target::parse(&format!("cn:{number}")).expect("a name");
        let revocation = Revocation {
            id: Id::random(),
            identity: target.text().into(),
            created: now(),
        };
        (revocation, target)
    };
    revocations.put((0..MOST - 1).map(row).collect());
    revocations.revoke(&ledger(), "cn:last").expect("room");
    let full = revocations.revoke(&ledger(), "cn:alice");
    assert!(matches!(full, Err(RevokeError::Full { most: MOST, .. })));
    assert_eq!(revocations.find(&alice(), &[]), None);
    let known = revocations.revoke(&ledger(), "cn:last").expect("known");
    assert!(!known.is_new);
}

#[test]
fn a_truncated_file_is_an_error_at_every_byte() {
    let directory = tempfile::tempdir().expect("a directory");
    let stored = || Revocations::stored(Some(directory.path().to_owned()));
    let first = stored().expect("no file");
    first.revoke(&ledger(), "cn:alice").expect("a disk");
    let path = file_in(directory.path());
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    let whole = fs::read(&path).expect("a file");
    assert_eq!(stored().expect("whole").list(), first.list());
    for length in 0..whole.len() - 1 {
        fs::write(&path, &whole[..length]).expect("a disk");
        assert!(stored().is_err(), "{length} bytes");
    }
    let text = String::from_utf8(whole).expect("JSON");
    for (from, to) in [
        ("\"version\": 1", "\"version\": 2"),
        ("cn:alice", "alice"),
        ("\"created\": \"2", "\"created\": \"x"),
        ("\"id\": \"", "\"id\": \"x"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).expect("a disk");
        assert!(stored().is_err(), "{to}");
    }
    // What is in force stays, and a change does not write over the damaged file.
    assert!(first.refresh().is_err());
    assert_eq!(first.list().len(), 1);
    assert!(first.revoke(&ledger(), "cn:bob").is_err());
    assert_eq!(first.list().len(), 1);
}

#[test]
fn a_file_that_is_gone_takes_no_revocation_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    let stored = || Revocations::stored(Some(run.clone())).expect("readable");
    let revocations = stored();
    revocations.revoke(&ledger(), "cn:alice").expect("a disk");
    for (identity, expected) in [("cn:alice", 1), ("cn:bob", 2)] {
        fs::remove_dir_all(&run).expect("ours");
        let error = revocations.refresh().expect_err("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(revocations.find(&alice(), &[]), Some("cn:alice".into()));
        let made = revocations.revoke(&ledger(), identity).expect("a disk");
        assert!(made.is_stored);
        assert_eq!(revocations.list().len(), expected);
        assert_eq!(stored().list(), revocations.list());
    }
    for revocation in revocations.list() {
        revocations.remove(revocation.id).expect("a disk");
    }
    fs::remove_dir_all(&run).expect("ours");
    revocations.refresh().expect("there was none");
}

#[test]
fn processes_that_share_a_file_lose_nothing_of_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let stored = || Revocations::stored(Some(path.to_owned())).expect("readable");
    thread::scope(|scope| {
        for process in 0..4 {
            scope.spawn(move || {
                let revocations = stored();
                for number in 0..8 {
                    let identity = format!("cn:{process}-{number}");
                    revocations.revoke(&ledger(), &identity).expect("a disk");
                }
            });
        }
    });
    assert_eq!(stored().list().len(), 32);
    let names = fs::read_dir(path).expect("a directory").count();
    assert_eq!(names, 1, "nothing is left beside the file");
}
