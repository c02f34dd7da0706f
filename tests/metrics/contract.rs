//! The names and labels that users query, and the parsers of others that must read the text.

use std::collections::{BTreeMap, BTreeSet};

use vestibule::{MetricsFormat, Running};

use super::samples::Samples;
use crate::common::process::{python, run, tool};
use crate::{Site, exchange};

/// Every metric with its labels, as the contract names them. A change here breaks dashboards.
const METRICS: [(&str, &[&str]); 38] = [
    ("vestibule_connections_total", &["listener", "outcome"]),
    (
        "vestibule_connections_open",
        &["listener", "backend", "state"],
    ),
    ("vestibule_tunnels", &["role"]),
    ("vestibule_tunnel_streams", &["role"]),
    ("vestibule_listener_tunnels", &["listener"]),
    ("vestibule_listener_tunnel_streams", &["listener"]),
    ("vestibule_backend_tunnels", &["backend", "address"]),
    ("vestibule_backend_tunnel_streams", &["backend", "address"]),
    ("vestibule_backend_workers_waiting", &["backend", "kind"]),
    ("vestibule_join_front_up", &["backend", "front"]),
    ("vestibule_join_offers", &["backend", "front"]),
    ("vestibule_join_connections_total", &["backend", "front"]),
    ("vestibule_join_server_up", &["backend"]),
    ("vestibule_pending", &[]),
    ("vestibule_bytes_total", &["listener", "direction"]),
    (
        "vestibule_handshakes_total",
        &[
            "listener", "version", "cipher", "group", "resumed", "result",
        ],
    ),
    (
        "vestibule_handshake_seconds",
        &["listener", "version", "resumed"],
    ),
    ("vestibule_rendezvous_wait_seconds", &["backend"]),
    ("vestibule_rendezvous_total", &["backend", "resolution"]),
    ("vestibule_gate_clients", &["kind"]),
    ("vestibule_connection_seconds", &["listener"]),
    ("vestibule_backend_up", &["backend", "address"]),
    ("vestibule_backend_connections", &["backend", "address"]),
    ("vestibule_backend_dial_seconds", &["backend"]),
    (
        "vestibule_certificate_expiry_timestamp_seconds",
        &["listener", "name"],
    ),
    (
        "vestibule_crl_next_update_timestamp_seconds",
        &["listener", "issuer"],
    ),
    ("vestibule_memory_bytes", &[]),
    ("vestibule_memory_max_bytes", &[]),
    ("vestibule_memory_pressure", &[]),
    ("vestibule_memory_kind_bytes", &["kind"]),
    ("vestibule_open_fds", &[]),
    ("vestibule_limit", &["name"]),
    ("vestibule_limit_used", &["name"]),
    ("vestibule_limit_peak", &["name"]),
    ("vestibule_dropped_total", &["what"]),
    ("vestibule_reloads_total", &["result"]),
    ("vestibule_worker_busy_ratio", &["worker"]),
    ("vestibule_build_info", &["version", "commit"]),
];

/// Metrics without a sample in the proxy of this test: its workers are the test's own runtime, and it
/// has no revocation list, no tunnels and no `[[join]]`. Other tests have them.
const ABSENT: [&str; 10] = [
    "vestibule_listener_tunnels",
    "vestibule_listener_tunnel_streams",
    "vestibule_backend_tunnels",
    "vestibule_backend_tunnel_streams",
    "vestibule_join_front_up",
    "vestibule_join_offers",
    "vestibule_join_connections_total",
    "vestibule_join_server_up",
    "vestibule_worker_busy_ratio",
    "vestibule_crl_next_update_timestamp_seconds",
];

pub(super) fn names() -> BTreeSet<String> {
    METRICS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// A proxy that has served a connection.
async fn used() -> Site {
    let site = Site::start().await;
    exchange(site.tls("https").await.expect("a handshake")).await;
    site
}

#[tokio::test]
async fn the_metrics_have_the_names_and_labels_of_the_contract() {
    let site = used().await;
    let found = Samples::of(&site.running).labels();
    let labels = |labels: &[&str]| labels.iter().map(|it| (*it).to_owned()).collect();
    let expected: BTreeMap<String, BTreeSet<String>> = METRICS
        .iter()
        .filter(|(name, _)| !ABSENT.contains(name))
        .map(|(name, keys)| ((*name).to_owned(), labels(keys)))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn public_parsers_read_both_formats_and_find_the_same() {
    let site = used().await;
    let open = parsed(&site.running, MetricsFormat::OpenMetrics, OPEN).await;
    let older = parsed(&site.running, MetricsFormat::Prometheus, OLDER).await;
    assert_eq!(open, older);
    let mut expected = names();
    expected.retain(|name| !ABSENT.contains(&&**name));
    let found: BTreeSet<String> = open.lines().map(str::to_owned).collect();
    assert_eq!(found, expected);
}

/// The names that a parser finds, one a line.
async fn parsed(running: &Running, format: MetricsFormat, parser: &str) -> String {
    let text = running.metrics(format);
    let mut command = python();
    command.args(["-c", &format!("{parser}{NAMES}")]);
    run(command, text.as_bytes()).await.text()
}

const OPEN: &str =
    "from prometheus_client.openmetrics.parser import text_string_to_metric_families\n";

const OLDER: &str = "from prometheus_client.parser import text_string_to_metric_families\n";

/// Each metric must have a help text with words for an operator. Families have the name without the
/// suffix that the type has.
const NAMES: &str = r#"
import sys
suffix = {"counter": "_total", "info": "_info"}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert len(family.documentation.split()) > 8, family
    assert family.type not in ("unknown", "untyped"), family
    name = family.name + suffix.get(family.type, "")
    print(name)
    for sample in family.samples:
        assert sample.name.startswith(name), sample
"#;

#[tokio::test]
async fn promtool_finds_nothing_to_object_to() {
    let site = used().await;
    let text = site.running.metrics(MetricsFormat::Prometheus);
    let mut promtool = tool("promtool");
    promtool.args(["check", "metrics"]);
    let checked = run(promtool, text.as_bytes()).await;
    assert_eq!((checked.code, &*checked.err), (Some(0), ""), "{text}");
}
