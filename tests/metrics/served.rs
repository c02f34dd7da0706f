//! The metrics as the admin API of the real binary serves them.

use super::samples::Samples;
use crate::common::admin::ask;
use crate::common::vestibule::Vestibule;

#[tokio::test]
async fn the_admin_api_serves_the_format_that_is_asked_for() {
    let vestibule = Vestibule::start("[[backend]]\nname = \"echo\"\nto = \"echo\"\n").await;
    let socket = vestibule.path("run/admin.sock");
    for (accept, media, is_open) in [
        ("*/*", "text/plain; version=0.0.4", false),
        (
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
            true,
        ),
    ] {
        let accept = format!("Accept: {accept}");
        let answer = ask(&socket, "/metrics", &["-H", &accept]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let media = format!("content-type: {media}; charset=utf-8");
        assert!(answer.headers.contains(&media), "{answer:?}");
        assert_eq!(answer.body.ends_with("# EOF\n"), is_open);
        let samples = Samples::read(&answer.body);
        let done = "vestibule_connections_total{listener=tcp,outcome=done}";
        assert_eq!(samples.sum(done), 0.0);
        assert!(samples.sum("vestibule_memory_bytes") > 1e6);
        assert!(samples.sum("vestibule_open_fds") > 3.0);
        assert!(samples.has("vestibule_worker_busy_ratio{worker=1}"));
    }
}
