use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command as Program;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::journal::EventKind;

fn settings(directory: &TempDir) -> AuditSettings {
    AuditSettings {
        path: directory.path().join("log/audit.log"),
        directory: None,
        rotate: None,
        keep: 3,
    }
}

fn directory() -> TempDir {
    let directory = tempdir().expect("a directory");
    fs::create_dir(directory.path().join("log")).expect("a directory");
    directory
}

fn writer(settings: &AuditSettings) -> Writer {
    Writer::new(LogFile::open(settings).expect("a file"))
}

/// An event that is told from others by its number.
fn stop(cut: usize) -> Event {
    Event::now(EventKind::Stop { cut })
}

fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a file");
    assert!(text.is_empty() || text.ends_with('\n'), "half a line");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|it| it["cut"].as_u64()).collect()
}

fn gaps(events: &[Value]) -> u64 {
    let gaps = events.iter().filter(|it| it["event"] == "gap");
    gaps.map(|it| it["dropped"].as_u64().expect("a number"))
        .sum()
}

/// Adds events until one is dropped. Returns how many were added, and how many were dropped.
fn overfill(writer: &mut Writer, from: usize) -> (usize, u64) {
    for number in from.. {
        writer.add(&stop(number));
        let lost = writer.take_lost();
        if lost > 0 {
            return (number + 1 - from, lost);
        }
    }
    unreachable!("memory is bounded")
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let directory = directory();
    let settings = settings(&directory);
    writer(&settings).add(&stop(1));
    let mode = fs::metadata(&settings.path).expect("a file").mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = directory();
    for path in ["/dev/null", "/dev/full", "/tmp"] {
        let settings = AuditSettings {
            path: path.into(),
            ..settings(&directory)
        };
        assert!(LogFile::open(&settings).is_err(), "{path}");
    }
}

#[test]
fn rotation_keeps_whole_lines_and_the_latest_files() {
    let directory = directory();
    let settings = AuditSettings {
        rotate: Some(300),
        ..settings(&directory)
    };
    let mut writer = writer(&settings);
    let log = settings.path.parent().expect("a directory");
    let mut last = Vec::new();
    // In batches that fit, and that are larger than a file.
    for batch in [1, 1, 2, 20, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        for _ in 0..batch {
            last.push(last.len() as u64);
            writer.add(&stop(last.len() - 1));
        }
        writer.write();
    }
    let names = fs::read_dir(log).expect("a directory");
    let mut names: Vec<_> = names.map(|it| it.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]
    );
    let mut kept = Vec::new();
    for name in names.iter().rev() {
        let path = log.join(name);
        assert!(fs::metadata(&path).expect("a file").len() <= 300);
        kept.extend(numbers(&events(&path)));
    }
    assert!(kept.len() > 10, "{kept:?}");
    assert_eq!(kept, last[last.len() - kept.len()..]);
}

#[test]
fn a_line_that_is_longer_than_a_file_may_be_is_written() {
    let directory = directory();
    let settings = AuditSettings {
        rotate: Some(1),
        keep: 1,
        ..settings(&directory)
    };
    let mut writer = writer(&settings);
    (1..=3).for_each(|number| writer.add(&stop(number)));
    writer.write();
    assert_eq!(numbers(&events(&settings.path)), [3]);
    let before = settings.path.with_extension("log.1");
    assert_eq!(numbers(&events(&before)), [2]);
}

#[test]
fn a_line_that_a_crash_has_cut_short_does_not_spoil_the_next() {
    let directory = directory();
    let settings = settings(&directory);
    fs::write(&settings.path, "{\"time\":\"2026-").expect("a file");
    let mut writer = writer(&settings);
    writer.add(&stop(1));
    writer.write();
    let text = fs::read_to_string(&settings.path).expect("a file");
    let (half, whole) = text.split_once('\n').expect("two lines");
    assert_eq!(half, "{\"time\":\"2026-");
    let whole: Value = serde_json::from_str(whole).expect("JSON");
    assert_eq!(whole["cut"], 1);
}

#[test]
fn a_removed_directory_is_a_gap_that_is_recorded_and_counted() {
    let directory = directory();
    let settings = settings(&directory);
    let log = settings.path.parent().expect("a directory");
    let mut writer = writer(&settings);
    writer.add(&stop(0));
    writer.write();
    fs::remove_dir_all(log).expect("ours");
    let (added, dropped) = overfill(&mut writer, 1);
    writer.add(&stop(0));
    writer.missed(5);
    assert_eq!((dropped, writer.take_lost()), (1, 1));
    fs::create_dir(log).expect("a directory");
    writer.retry();
    writer.add(&stop(7));
    writer.write();
    let events = events(&settings.path);
    // One of `added` and the one after it were dropped here, and five in the queue.
    assert_eq!(gaps(&events), 2 + 5);
    let numbers = numbers(&events);
    assert_eq!(numbers.len(), added - 1 + 1);
    assert_eq!((numbers[0], numbers.last()), (1, Some(&7)));
    let gap = events.iter().position(|it| it["event"] == "gap");
    assert_eq!(
        gap,
        Some(events.len() - 2),
        "it is where the lines are missing"
    );
}

#[test]
fn a_full_disk_leaves_whole_lines_and_a_gap() {
    let directory = directory();
    let settings = settings(&directory);
    let log = settings.path.parent().expect("a directory");
    let _mounted = Mounted::new(log);
    let mut writer = writer(&settings);
    let ballast = log.join("ballast");
    fs::write(&ballast, vec![1; 32 * 1024]).expect("room");
    let (added, dropped) = overfill(&mut writer, 0);
    let before = numbers(&events(&settings.path));
    assert!(!before.is_empty() && before.len() < added);
    fs::remove_file(&ballast).expect("ours");
    fs::remove_file(&settings.path).expect("ours");
    writer.give_up();
    let given_up = writer.take_lost();
    assert_eq!(before.len() as u64 + given_up + dropped, added as u64);
    writer.retry();
    assert_eq!(gaps(&events(&settings.path)), dropped);
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let directory = directory();
    let settings = AuditSettings {
        rotate: Some(100),
        ..settings(&directory)
    };
    // A directory where the rotated file should be: a rename to it fails.
    fs::create_dir_all(directory.path().join("log/audit.log.new")).expect("a directory");
    let mut writer = writer(&settings);
    (0..10).for_each(|number| writer.add(&stop(number)));
    writer.write();
    assert_eq!(numbers(&events(&settings.path)), Vec::from_iter(0..10));
}

#[test]
fn a_file_that_was_moved_away_gets_its_lines_until_the_path_is_opened_again() {
    let directory = directory();
    let settings = settings(&directory);
    let moved = settings.path.with_extension("moved");
    let mut writer = writer(&settings);
    let write = |writer: &mut Writer, number| {
        writer.add(&stop(number));
        writer.write();
    };
    write(&mut writer, 1);
    fs::rename(&settings.path, &moved).expect("ours");
    write(&mut writer, 2);
    writer.reopen();
    write(&mut writer, 3);
    // logrotate may create the new file itself.
    fs::rename(&settings.path, settings.path.with_extension("second")).expect("ours");
    fs::write(&settings.path, "").expect("a file");
    fs::set_permissions(&settings.path, fs::Permissions::from_mode(0o640)).expect("ours");
    write(&mut writer, 4);
    assert_eq!(numbers(&events(&moved)), [1, 2]);
    assert_eq!(numbers(&events(&settings.path)), [4]);
    let mode = fs::metadata(&settings.path).expect("a file").mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_written() {
    let directory = directory();
    let settings = settings(&directory);
    let journal = Arc::new(Journal::default());
    let log = AuditLog::default();
    log.change(Some(&settings), &journal).expect("a file");
    (0..5_000).for_each(|number| journal.publish(stop(number)));
    log.finish().await;
    assert_eq!(numbers(&events(&settings.path)), Vec::from_iter(0..5_000));
    assert!(!journal.is_observed());
}

#[tokio::test]
async fn a_limit_that_is_reached_is_for_streams_of_events_and_has_no_line() {
    let directory = directory();
    let settings = settings(&directory);
    let journal = Arc::new(Journal::default());
    let log = AuditLog::default();
    log.change(Some(&settings), &journal).expect("a file");
    journal.publish(Event::now(EventKind::Limit {
        limit: "limits.connections",
        clients: 7,
        listener: "https".into(),
        peer: None,
    }));
    journal.publish(stop(1));
    log.finish().await;
    assert_eq!(events(&settings.path).len(), 1);
}

#[tokio::test]
async fn a_change_of_the_path_loses_and_repeats_nothing() {
    let directory = directory();
    let first = settings(&directory);
    let second = AuditSettings {
        path: first.path.with_extension("second"),
        ..first.clone()
    };
    let journal = Arc::new(Journal::default());
    let log = AuditLog::default();
    log.change(Some(&first), &journal).expect("a file");
    journal.publish(stop(1));
    log.change(Some(&second), &journal).expect("a file");
    let missing = AuditSettings {
        path: "/nonexistent/audit.log".into(),
        ..first.clone()
    };
    log.change(Some(&missing), &journal)
        .expect_err("no directory");
    journal.publish(stop(2));
    log.change(None, &journal).expect("an end");
    journal.publish(stop(3));
    log.change(Some(&first), &journal).expect("a file");
    journal.publish(stop(4));
    log.finish().await;
    let all = [&first, &second].map(|it| numbers(&events(&it.path)));
    let mut all = all.concat();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 4]);
    assert!(numbers(&events(&first.path)).contains(&4));
}

/// A tmpfs of 64 KiB.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(path: &'a Path) -> Self {
        let mut mount = Program::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
        let done = mount.arg(path).status().expect("mount");
        assert!(done.success(), "tests run as root");
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg("-l").arg(self.0).status();
    }
}
