//! The alert rules and the dashboard in deploy/: their metrics exist, and the rules do what they say.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::contract;
use crate::common::process::{output, tool};
use crate::common::project;

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).expect(path)
}

/// The metrics that a text names, without the suffixes of histograms.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_of_name(c));
    let words = words.filter(|word| word.starts_with("vestibule_"));
    let base = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        base.unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_exist() {
    for path in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts.test.yml",
        "deploy/grafana/vestibule.json",
    ] {
        let named = named(&read(path));
        assert!(named.len() > 10, "{path}: {named:?}");
        let unknown: Vec<_> = named.difference(&contract::names()).cloned().collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let shown = named(&read("deploy/grafana/vestibule.json"));
    let missing: Vec<_> = contract::names().difference(&shown).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_page_describes_every_metric() {
    let described = named(&read("docs/metrics.md"));
    let missing: Vec<_> = contract::names().difference(&described).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/vestibule.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|it| it["id"].as_u64().expect("an id"))
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|it| it["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{panel}");
        // An id of somebody's own data source would not exist elsewhere.
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
}

#[test]
fn every_alert_has_a_line_for_the_run_book_and_a_test() {
    let (rules, tests) = (
        read("deploy/prometheus/alerts.yml"),
        read("deploy/prometheus/alerts.test.yml"),
    );
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        let has = |key: &str| alert.lines().any(|line| line.trim().starts_with(key));
        assert!(
            has("runbook: ") && has("summary: ") && has("labels: { severity: "),
            "{name}"
        );
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name}");
    }
}

#[tokio::test]
async fn promtool_accepts_the_rules_and_their_tests_pass() {
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let mut promtool = tool("promtool");
        promtool
            .args([what, "rules", file])
            .current_dir(project("deploy/prometheus"));
        let done = output(promtool).await;
        let said = String::from_utf8_lossy(&done.out);
        assert_eq!(done.code, Some(0), "{said}{}", done.err);
    }
}
