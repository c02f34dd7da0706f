//! `vestibule doctor` on this machine.

mod common;

use std::fs;

use common::process::{run, tool, vestibule};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const CONFIG: &str = "[limits]\nconnections = 100\n[[listener]]\nname = \"front\"\n\
                      address = \"127.0.0.1:0\"\n[[backend]]\nname = \"app\"\nto = \"echo\"\n";

fn file(config: &str) -> (TempDir, String) {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("vestibule.toml");
    fs::write(&path, config).expect("a file");
    let path = path.display().to_string();
    (directory, path)
}

/// The line of a check, without its name.
fn line<'a>(said: &'a str, level: &str, check: &str) -> &'a str {
    let mut lines = said.lines().filter_map(|it| it.strip_prefix(level));
    let line = lines.find_map(|it| it.trim_start().strip_prefix(check));
    line.unwrap_or_else(|| panic!("no {level} {check} in:\n{said}"))
}

#[tokio::test]
async fn the_exit_code_is_1_exactly_if_something_will_break() {
    let (_directory, path) = file(CONFIG);
    for (limit, code, level) in [(256, Some(0), "ok"), (128, Some(1), "fail")] {
        let script = format!("ulimit -n {limit}; exec \"$0\" doctor -c \"$1\"");
        let mut command = tool("sh");
        command
            .args(["-c", &script])
            .arg(vestibule().as_std().get_program())
            .arg(&path);
        let done = run(command, b"").await;
        let said = String::from_utf8(done.out).expect("text");
        assert_eq!(done.code, code, "{said}{}", done.err);
        let descriptors = line(&said, level, "descriptors");
        assert!(descriptors.contains(&limit.to_string()), "{said}");
        assert_eq!(said.contains("LimitNOFILE=164"), level == "fail", "{said}");
        line(&said, "ok", "configuration");
        assert_eq!(done.err, "");
    }
}

#[tokio::test]
async fn the_json_has_every_check_with_what_to_do() {
    let (_directory, path) = file(&CONFIG.replace("100", "4000000000"));
    let mut command = vestibule();
    command.args(["doctor", "--json", "-c", &path]);
    let done = run(command, b"").await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    let said: Value = serde_json::from_slice(&done.out).expect("JSON");
    let checks = said["checks"].as_array().expect("a list");
    let count = |level: &str| checks.iter().filter(|it| it["level"] == level).count();
    for level in ["ok", "warn", "fail"] {
        assert_eq!(said[level], count(level), "{said:#}");
    }
    let descriptors = checks.iter().find(|it| it["check"] == "descriptors");
    let descriptors = descriptors.expect("a check");
    assert_eq!(descriptors["level"], "fail");
    let advice = descriptors["advice"].as_str().expect("something to do");
    assert!(advice.contains("LimitNOFILE=4000000064"), "{advice}");
}

#[tokio::test]
async fn without_a_file_it_checks_for_the_defaults() {
    let mut command = vestibule();
    command.args(["doctor"]);
    let done = run(command, b"").await;
    let said = String::from_utf8(done.out).expect("text");
    let configuration = line(&said, "ok", "configuration");
    assert!(configuration.contains("defaults"), "{said}");
    let breaks = said.lines().any(|it| it.starts_with("fail"));
    assert_eq!(done.code, Some(i32::from(breaks)), "{said}");
}

#[tokio::test]
async fn a_wrong_configuration_will_break() {
    let (_directory, path) = file(&CONFIG.replace("connections", "conections"));
    let mut command = vestibule();
    command.args(["doctor", "-c", &path]);
    let done = run(command, b"").await;
    let said = String::from_utf8(done.out).expect("text");
    assert_eq!(done.code, Some(1));
    let configuration = line(&said, "fail", "configuration");
    assert!(configuration.contains("vestibule.toml:2:1"), "{said}");
}
