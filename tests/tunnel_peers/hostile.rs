//! Python's `hyperframe` and `hpack`, which build frames that no client sends.

use tokio::io::AsyncWriteExt;

use super::terminator;
use crate::common::process::{Process, python};
use crate::common::project;
use crate::common::tunnel::Tunnel;

#[tokio::test]
async fn each_broken_rule_ends_as_rfc_9113_says_and_no_neighbour_notices() {
    let (site, vestibule, _app) = terminator().await;
    let bob = site.client("bob");
    let neighbour = Tunnel::open(&vestibule, &site, &bob).await;
    let mut stream = neighbour.connect("echo:1").await;
    let mut command = python();
    command.arg(project("tests/tunnel_peers/hostile.py"));
    command.arg(super::port(&vestibule).to_string());
    command.args(["ca.pem", "alice.pem", "alice-key.pem"].map(|file| site.path(file)));
    let (process, mut stdin) = Process::start_listening(command);
    let mut cases = 0;
    loop {
        stdin.write_all(b"next\n").await.expect("it reads");
        let lines = process.lines("", cases + 1).await;
        stream.echo(b"beside").await;
        if lines.iter().any(|line| line == "done") {
            break;
        }
        cases += 1;
    }
    let said = process.said();
    let wrong: Vec<&String> = said
        .out
        .iter()
        .filter(|it| it.starts_with("WRONG"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases >= 60, "{cases} cases");
    let outcomes = vestibule.outcomes();
    assert!(!outcomes.contains_key("aborted"), "{outcomes:?}");
    assert!(vestibule.memory() < 120 << 20, "{}", vestibule.memory());
}
