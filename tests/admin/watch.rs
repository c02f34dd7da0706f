//! `vestibule connections --watch`: again and again, also over a restart.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;

use crate::admin::commands::command;
use crate::common::client::Front;
use crate::common::process::{Process, output};
use crate::common::vestibule::Vestibule;
use crate::{ECHO, relayed};

#[tokio::test]
async fn a_watch_prints_tables_over_a_restart_until_ctrl_c() {
    let running = Vestibule::start(ECHO).await;
    let client = relayed(&Front::Tcp(running.tcp())).await;
    let watch = Process::start(command(&running, &["connections", "--watch=1"]));
    watch.lines("connections: 1", 2).await;
    watch.lines("relaying", 2).await;
    // Of the server's log nothing is left to wait for: the next table tells.
    drop(client);
    watch.line("connections: 0").await;

    let directory = running.kill().await;
    watch.line("trying again").await;
    let running = Vestibule::start_in(Arc::clone(&directory), ECHO).await;
    watch.line("the server answers again").await;
    let _client = relayed(&Front::Tcp(running.tcp())).await;
    watch.lines("connections: 1", 3).await;
    watch.signal(Signal::INT);
    let (status, said) = watch.wait().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(said.err.len(), 2, "{:?}", said.err);
    assert!(!said.out.iter().any(|line| line.contains('\u{1b}')));
}

#[tokio::test]
async fn a_watch_with_json_prints_one_document_on_each_line() {
    let running = Vestibule::start(ECHO).await;
    let _client = relayed(&Front::Tcp(running.tcp())).await;
    let words = ["connections", "--watch=1", "--json", "--listener", "tcp"];
    let watch = Process::start(command(&running, &words));
    let lines = watch.lines("{", 2).await;
    let _directory = running.kill().await;
    let lost = watch.line("error").await;
    watch.signal(Signal::INT);
    let (status, said) = watch.wait().await;
    assert_eq!((status.code(), &*said.err), (Some(0), &[][..]));
    let parsed = |line: &String| serde_json::from_str::<Value>(line).expect("JSON");
    for line in &lines {
        let document = parsed(line);
        assert_eq!(document["total"], 1);
        assert_eq!(document["connections"][0]["state"], "relaying");
        assert!(document["time"].is_string());
    }
    let lost = parsed(&lost);
    assert!(
        lost["error"]
            .as_str()
            .expect("words")
            .contains("nobody answers")
    );
}

#[tokio::test]
async fn a_watch_needs_a_server_at_its_beginning_and_an_interval() {
    let mut running = Vestibule::start(ECHO).await;
    let done = output(command(&running, &["connections", "--watch=0"])).await;
    assert_eq!(done.code, Some(2), "{}", done.err);
    running.signal(Signal::KILL);
    running.wait().await;
    let done = output(command(&running, &["connections", "--watch"])).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("nobody answers"), "{}", done.err);
}
