//! The commands that talk to a running Vestibule.

use std::fs;
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

use crate::common::client::Front;
use crate::common::process::{Process, output, vestibule};
use crate::common::vestibule::{LISTENERS, Vestibule, complete};
use crate::{ECHO, ask_of, relayed};

/// The command, for the instance of this test.
pub(crate) fn command(of: &Vestibule, words: &[&str]) -> Command {
    let mut command = vestibule();
    let socket = format!("unix:{}", of.path("run/admin.sock").display());
    command.args(words).args(["--admin", &socket]);
    command
}

#[tokio::test]
async fn status_and_connections_print_text_and_json() {
    let running = Vestibule::start(ECHO).await;
    let _client = relayed(&Front::Tcp(running.tcp())).await;
    let text = output(command(&running, &["status"])).await.text();
    for part in [
        &*format!("process {}", running.pid()),
        "1 open",
        "days left",
        "echo",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().count() < 24, "{text}");
    let json = output(command(&running, &["status", "--json"]))
        .await
        .text();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["connections"]["open"], 1);

    let words = [
        "connections",
        "--listener",
        "tcp",
        "--state",
        "relaying",
        "--sort=-bytes",
    ];
    let table = output(command(&running, &words)).await.text();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(
        table.contains("localhost") && table.contains("relaying"),
        "{table}"
    );
    let json = output(command(&running, &["connections", "--json"]))
        .await
        .text();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn kill_ends_what_it_names_and_nothing_without_a_name() {
    let running = Vestibule::start(ECHO).await;
    let _client = relayed(&Front::Tcp(running.tcp())).await;
    let done = output(command(&running, &["kill"])).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    let done = output(command(&running, &["kill", "--peer", "192.0.2.1"])).await;
    assert_eq!(done.text(), "killed 0\n");
    let all = ask_of(&running, "/v1/connections", &[]).await.json();
    let id = all["connections"][0]["id"].as_str().expect("an id");
    let done = output(command(&running, &["kill", id])).await;
    assert_eq!(done.text(), "killed 1\n");
    running.ended("killed", 1).await;
    let done = output(command(&running, &["kill", id])).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("no open connection"), "{}", done.err);
}

#[tokio::test]
async fn reload_prints_its_result_or_every_problem() {
    let running = Vestibule::start(ECHO).await;
    let done = output(command(&running, &["reload"])).await;
    assert_eq!(done.text(), "reloaded; connections revoked: 0\n");
    let file = running.path("vestibule.toml");
    let config = complete(&running.directory, &format!("{ECHO}{LISTENERS}"));
    fs::write(&file, format!("[timeouts]\nidle = 0\ndrain = 1\n{config}")).expect("ours");
    let done = output(command(&running, &["reload"])).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    let place = |line| format!("{}:{line}:", file.display());
    assert!(
        done.err.contains(&place(2)) && done.err.contains(&place(3)),
        "{}",
        done.err
    );
    assert_eq!(done.err.lines().count(), 2, "{}", done.err);
    let status = ask_of(&running, "/v1/status", &[]).await.json();
    assert!(status["reloads"]["failed"].as_u64() >= Some(1));
    assert!(status["last_problem"]["message"].is_string());
}

#[tokio::test]
async fn drain_shows_its_progress_until_the_process_has_ended() {
    let mut running = Vestibule::start(ECHO).await;
    let client = relayed(&Front::Tcp(running.tcp())).await;
    let drain = Process::start(command(&running, &["drain"]));
    drain.line("draining: 1 open").await;
    let answer = ask_of(&running, "/readyz", &[]).await;
    assert_eq!((answer.status, &*answer.code()), (503, "draining"));
    assert_eq!(ask_of(&running, "/healthz", &[]).await.status, 200);
    let flags = ["-X", "POST", "-H", "Vestibule-Admin: 1"];
    let answer = ask_of(&running, "/v1/reload", &flags).await;
    assert_eq!((answer.status, &*answer.code()), (409, "draining"));
    drop(client);
    drain.line("drained").await;
    assert_eq!(drain.wait().await.0.code(), Some(0));
    assert_eq!(running.wait().await.code(), Some(0));
}

#[tokio::test]
async fn commands_find_the_only_instance_and_list_several() {
    let home = Arc::new(tempfile::tempdir().expect("a directory"));
    let status = || {
        let mut command = vestibule();
        command.arg("status").env("XDG_RUNTIME_DIR", home.path());
        command
    };
    let done = output(status()).await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("no running Vestibule in"), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);

    let runtime = "[runtime]\ndirectory = \"{dir}/vestibule\"\nlog_format = \"json\"\n";
    let config = format!("{runtime}{ECHO}{LISTENERS}");
    let first = Vestibule::start_as(&home, "first.toml", &config).await;
    let found = output(status()).await.text();
    assert!(
        found.contains(&format!("process {}", first.pid())),
        "{found}"
    );

    let other = config.replace("front.sock", "other.sock");
    let second = Vestibule::start_as(&home, "second.toml", &other).await;
    let done = output(status()).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    for pid in [first.pid(), second.pid()] {
        assert!(done.err.contains(&format!("process {pid}")), "{}", done.err);
    }
    // A killed process leaves its socket, which nobody counts.
    second.kill().await;
    let found = output(status()).await.text();
    assert!(
        found.contains(&format!("process {}", first.pid())),
        "{found}"
    );
}

#[tokio::test]
async fn nobody_there_is_one_line_that_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    let mut status = vestibule();
    let socket = format!("unix:{}/admin.sock", home.path().display());
    status.args(["status", "--admin", &socket]);
    let done = output(status).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    assert!(done.err.contains("nobody answers at unix:"), "{}", done.err);
}
