//! `vestibule log`: prints what was asked for, newest first, and reads no more than it needs.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use common::process::{Process, output, tool, vestibule};
use common::vestibule::complete;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// The line of a connection. Each is a second younger than the one before.
fn line(number: u64) -> String {
    let time = SystemTime::now() - Duration::from_secs(3600) + Duration::from_secs(number);
    let time = humantime::format_rfc3339_millis(time);
    let (backend, outcome) = match number % 3 {
        0 => ("api", "done"),
        1 => ("app", "idle"),
        _ => ("app", "killed"),
    };
    let user = number % 5;
    format!(
        r#"{{"time":"{time}","event":"close","outcome":"{outcome}","cause":"why","bytes_in":{number},"bytes_out":2,"seconds":1.5,"id":"{number:08x}-0000-4000-8000-000000000000","listener":"https","peer":"192.0.2.{user}:4711","local":null,"backend":"{backend}","accepted_at":"{time}","tls":{{"version":"1.3","sni":"a\u001bb"}},"identity":{{"uri":[],"dns":["u{user}.example"],"cn":"user {user}","ou":["ops"],"sha256":"ab"}}}}"#
    )
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers
        .into_iter()
        .map(|number| line(number) + "\n")
        .collect()
}

/// 30 events in three files.
fn logs() -> (TempDir, PathBuf) {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    fs::write(&path, lines(20..30)).expect("a file");
    fs::write(directory.path().join("audit.log.1"), lines(10..20)).expect("a file");
    fs::write(directory.path().join("audit.log.2"), lines(0..10)).expect("a file");
    (directory, path)
}

/// The numbers of the events that it prints.
async fn found(path: &Path, args: &str) -> Vec<u64> {
    let mut command = vestibule();
    command.args(["log", "--json"]).arg(path);
    command.args(args.split(' ').filter(|arg| !arg.is_empty()));
    let text = output(command).await.text();
    let number = |line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        event["bytes_in"].as_u64().expect("a number")
    };
    text.lines().map(number).collect()
}

fn backwards(numbers: impl DoubleEndedIterator<Item = u64>) -> Vec<u64> {
    numbers.rev().collect()
}

#[tokio::test]
async fn the_newest_event_of_all_files_comes_first() {
    let (_directory, path) = logs();
    assert_eq!(found(&path, "").await, backwards(0..30));
    assert_eq!(found(&path, "--limit 12").await, backwards(18..30));
    assert_eq!(found(&path, "--limit 0").await, [0; 0]);
    // The current file is missing for a moment when another program rotates.
    fs::remove_file(&path).expect("ours");
    assert_eq!(found(&path, "").await, backwards(0..20));
}

#[tokio::test]
async fn each_condition_selects_its_events() {
    let (_directory, path) = logs();
    let since = |from: u64| backwards(from..30);
    let all = |is_it: fn(u64) -> bool| backwards((0..30).filter(|it| is_it(*it)));
    for (args, expected) in [
        ("--backend api", all(|it| it % 3 == 0)),
        ("--outcome killed", all(|it| it % 3 == 2)),
        ("--outcome killed,idle", all(|it| it % 3 != 0)),
        ("--outcome killed --outcome idle", all(|it| it % 3 != 0)),
        ("--event close", since(0)),
        ("--event open", vec![]),
        ("--identity dns:u2.example", all(|it| it % 5 == 2)),
        ("--identity ou:ops", since(0)),
        ("--identity ou:op", vec![]),
        ("--identity sha256:ab", since(0)),
        ("--peer 192.0.2.3", all(|it| it % 5 == 3)),
        ("--peer 192.0.2.0/30", all(|it| it % 5 != 4)),
        ("--peer 192.0.2.3 --backend api", all(|it| it % 15 == 3)),
        ("--id 0000001d-0000-4000-8000-000000000000", vec![29]),
        ("--id 0000001D", vec![29]),
        ("--since 3595s", since(5)),
        ("--until 3595s", backwards(0..5)),
        ("--since 2020-01-01", since(0)),
        ("--until 2020-01-01T10:00:00Z", vec![]),
    ] {
        let found = found(&path, args).await;
        // The clock moves on between the file and the command.
        let is_near = args.contains("35") && found.len().abs_diff(expected.len()) <= 3;
        assert!(found == expected || is_near, "{args}: {found:?}");
    }
}

#[tokio::test]
async fn a_row_names_who_and_why_and_is_safe_to_print() {
    let (_directory, path) = logs();
    let mut command = vestibule();
    command.arg("log").arg(&path).args(["--limit", "1"]);
    let row = output(command).await.text();
    for part in [
        "  close     0000001d  https  192.0.2.4:4711 -> app  dns:u4.example  ",
        "  killed  1.5 s  in=29 out=2  why\n",
        "sni=a\\u{1b}b",
    ] {
        assert!(row.contains(part), "{part}: {row}");
    }
}

#[tokio::test]
async fn damaged_lines_are_skipped() {
    let (_directory, path) = logs();
    let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
    file.write_all(b"\n\xff\xfe\n[1]\nno JSON\n").expect("room");
    file.write_all(line(30).as_bytes()).expect("room");
    file.write_all(b"\n{\"time\":\"2026-").expect("room");
    assert_eq!(found(&path, "").await, backwards(0..31));
}

/// 64 GiB, of which only the last lines take space.
#[tokio::test]
async fn the_last_lines_of_a_huge_file_are_found_at_once() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let file = fs::File::create(&path).expect("a file");
    file.set_len(64 << 30).expect("a sparse file");
    let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
    file.write_all(b"\n").expect("room");
    file.write_all(lines(0..1000).as_bytes()).expect("room");
    for args in ["--limit 20", "--since 2700s"] {
        let began = Instant::now();
        let found = found(&path, args).await;
        // To read it all takes ten seconds at least.
        assert!(began.elapsed() < Duration::from_secs(3), "{args}");
        assert_eq!((found.len() >= 20, found[0]), (true, 999));
    }
}

#[tokio::test]
async fn following_prints_the_last_events_and_then_each_new_one_over_rotations() {
    let (directory, path) = logs();
    let mut command = vestibule();
    command.arg("log").arg(&path);
    command.args(["--follow", "--json", "--backend", "app", "--limit", "2"]);
    let process = Process::start(command);
    // Oldest first.
    process.line("0000001d").await;
    let append = |text: &str| {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(&path);
        file.expect("a file")
            .write_all(text.as_bytes())
            .expect("room");
    };
    // In two halves, and one that is for another backend.
    let (whole, half) = (lines([30, 31]), line(32));
    append(&whole);
    append(&half[..100]);
    process.line("0000001f").await;
    append(&half[100..]);
    append("\n");
    process.line("00000020").await;
    for number in [34, 35] {
        for old in (1..10).rev() {
            let from = directory.path().join(format!("audit.log.{old}"));
            let _ = fs::rename(
                from,
                directory.path().join(format!("audit.log.{}", old + 1)),
            );
        }
        // Written after the last look, and then rotated.
        fs::rename(&path, directory.path().join("audit.log.1")).expect("ours");
        append(&lines([number]));
    }
    process.line("00000023").await;
    let numbers = process.said().out.into_iter().map(|line| {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        event["bytes_in"].as_u64().expect("a number")
    });
    assert_eq!(Vec::from_iter(numbers), [28, 29, 31, 32, 34, 35]);
}

#[tokio::test]
async fn the_configuration_names_the_file() {
    let (directory, path) = logs();
    let rest = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
                [[backend]]\nname = \"b\"\nto = \"echo\"\n";
    let config = directory.path().join("vestibule.toml");
    let audit = format!("[audit]\npath = \"{}\"\n", path.display());
    fs::write(&config, complete(&directory, &(audit + rest))).expect("a file");
    let log = || {
        let mut command = vestibule();
        command.args(["log", "-c"]).arg(&config).arg("--json");
        output(command)
    };
    assert_eq!(log().await.text().lines().count(), 30);
    fs::write(&config, complete(&directory, rest)).expect("a file");
    let done = log().await;
    assert_eq!(done.code, Some(2));
    assert!(
        done.err.contains("has no audit log; set `audit.path`"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn without_a_name_the_log_in_the_runtime_directory_is_read() {
    let (directory, path) = logs();
    let run = directory.path().join("vestibule");
    let log = || {
        let mut command = vestibule();
        command.args(["log", "--json"]);
        command.env("XDG_RUNTIME_DIR", directory.path());
        output(command)
    };
    let done = log().await;
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("no audit log"), "{}", done.err);
    fs::create_dir(&run).expect("a directory");
    fs::rename(&path, run.join("audit.log")).expect("ours");
    assert_eq!(log().await.text().lines().count(), 10);
}

#[tokio::test]
async fn exit_codes_tell_usage_from_failure() {
    for (args, code, part) in [
        ("log /nonexistent/audit.log", 1, "No such file or directory"),
        ("log /x -c /y", 2, "cannot be used with"),
        ("log /x --since yesterday", 2, "2026-11-20T20:00:00Z"),
        ("log /x --peer nobody", 2, "192.0.2.0/24"),
        ("log /x --identity alice", 2, "cn:"),
        ("log /x --id 12", 2, "first eight"),
        ("log /x --outcome fine", 2, "fine"),
        ("log -c /nonexistent.toml", 2, "/nonexistent.toml"),
    ] {
        let mut command = vestibule();
        command.args(args.split(' '));
        let done = output(command).await;
        assert_eq!(done.code, Some(code), "{args}");
        assert!(done.err.contains(part), "{args}: {}", done.err);
        assert_eq!((done.err.lines().count(), done.out.len()), (1, 0), "{args}");
    }
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let (_directory, path) = logs();
    fs::write(&path, lines(0..2000)).expect("a file");
    let mut shell = tool("sh");
    let script = "{ \"$0\" log \"$1\"; echo \"code $?\" >&2; } | head -n 1";
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_vestibule")])
        .arg(&path);
    let done = output(shell).await;
    assert_eq!(done.err, "code 0\n");
}
