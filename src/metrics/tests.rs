use std::thread;

use super::*;
use crate::outcome::Outcome;
use crate::rendezvous::Resolution;
use crate::traffic::Traffic;

fn text(metrics: &Metrics) -> String {
    metrics.text(&Registry::default(), MetricsFormat::OpenMetrics)
}

fn has(metrics: &Metrics, line: &str) -> bool {
    text(metrics).lines().any(|it| it == line)
}

#[test]
fn every_outcome_and_resolution_is_exported_as_zero_before_the_first() {
    let metrics = Metrics::default();
    metrics.listener("https");
    metrics.backend("app");
    for outcome in Outcome::ALL {
        let line =
            format!(r#"vestibule_connections_total{{listener="https",outcome="{outcome}"}} 0"#);
        assert!(has(&metrics, &line), "{line}");
    }
    for resolution in Resolution::ALL {
        let labels = format!(r#"{{backend="app",resolution="{resolution}"}}"#);
        let line = format!("vestibule_rendezvous_total{labels} 0");
        assert!(has(&metrics, &line), "{line}");
    }
}

#[test]
fn any_name_is_escaped_as_a_label() {
    let metrics = Metrics::default();
    metrics.listener("a\"b\\c\nd").refused(Outcome::OverLimit);
    let line = r#"vestibule_connections_total{listener="a\"b\\c\nd",outcome="over_limit"} 1"#;
    assert!(has(&metrics, line), "{}", text(&metrics));
}

#[test]
fn a_failed_handshake_is_counted_without_a_time() {
    let metrics = Metrics::default();
    metrics.shaken(&Handshake {
        listener: &"https".into(),
        tls: None,
        result: "not_tls",
        took: Duration::from_millis(3),
    });
    let line = "vestibule_handshakes_total{listener=\"https\",version=\"unknown\",\
         cipher=\"unknown\",group=\"unknown\",resumed=\"unknown\",result=\"not_tls\"} 1";
    assert!(has(&metrics, line), "{}", text(&metrics));
    assert!(!text(&metrics).contains("vestibule_handshake_seconds_count"));
}

#[test]
fn the_bytes_of_a_listener_never_go_down() {
    let metrics = Metrics::default();
    let listener = metrics.listener("https");
    let traffic = Traffic::default();
    traffic.from_client.add(100);
    traffic.to_client.add(7);
    assert_eq!(listener.report([100, 7]), [100, 7]);
    // The connection has left the index, and its bytes are not counted as ended yet.
    assert_eq!(listener.report([0, 0]), [100, 7]);
    listener.closed(Outcome::Done, &traffic, Duration::ZERO);
    assert_eq!(listener.report(listener.ended_bytes()), [100, 7]);
    assert_eq!(listener.report([150, 8]), [150, 8]);
}

#[test]
fn threads_that_meet_at_a_new_name_count_together() {
    let metrics = Metrics::default();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for name in ["a", "b", "c", "d"] {
                    metrics.listener(name).refused(Outcome::OverLimit);
                    metrics
                        .backend(name)
                        .resolved(Resolution::Claimed, Duration::ZERO);
                }
            });
        }
    });
    for name in ["a", "b", "c", "d"] {
        let line =
            format!(r#"vestibule_connections_total{{listener="{name}",outcome="over_limit"}} 8"#);
        assert!(has(&metrics, &line), "{line}");
        let line =
            format!(r#"vestibule_rendezvous_total{{backend="{name}",resolution="claimed"}} 8"#);
        assert!(has(&metrics, &line), "{line}");
    }
}
