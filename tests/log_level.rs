//! The log level can be changed for a limited time while the process runs.

mod common;

use std::sync::Arc;

use common::admin::{Answer, WRITE, ask};
use common::client::Front;
use common::vestibule::{LISTENERS, Vestibule, message};
use common::{soon, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Starts with the level of the configuration.
async fn start(config: &str) -> Vestibule {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config = format!("{config}[[backend]]\nname = \"echo\"\nto = \"echo\"\n{LISTENERS}");
    let vestibule = Vestibule::spawn(directory, &config, |mut command| {
        command.env_remove("RUST_LOG");
        command
    });
    vestibule.until_started().await;
    vestibule
}

async fn log(vestibule: &Vestibule, flags: &[&str]) -> Answer {
    let flags = [flags, &WRITE[..]].concat();
    ask(&vestibule.path("run/admin.sock"), "/v1/log", &flags).await
}

async fn put(vestibule: &Vestibule, filter: &str, time: &str) -> Answer {
    let body = serde_json::json!({"filter": filter, "for": time}).to_string();
    log(vestibule, &["-X", "PUT", "-d", &body]).await
}

/// Makes a connection, and waits until it has ended and is counted.
async fn connection(vestibule: &Vestibule, number: usize) {
    let front = Front::Unix(vestibule.path("front.sock"));
    let mut client = front.connect().await.expect("a handshake");
    client.shutdown().await.expect("an open connection");
    let end = client.read_to_end(&mut Vec::new()).await;
    end.expect("a clean end");
    let socket = vestibule.path("run/admin.sock");
    soon("its end", async {
        while ask(&socket, "/v1/status", &[]).await.json()["connections"]["ended"]["done"] != number
        {
        }
    })
    .await;
}

fn shown(answer: &Answer) -> (u16, Value, bool) {
    let value = answer.json();
    (
        answer.status,
        value["filter"].clone(),
        value["until"].is_string(),
    )
}

#[tokio::test]
async fn a_level_holds_for_its_time_and_no_longer() {
    for config in [
        "",
        "[runtime]\ndirectory = \"{dir}/run\"\nlog = \"warn\"\nlog_format = \"json\"\n",
    ] {
        let vestibule = start(config).await;
        let configured = if config.is_empty() { "info" } else { "warn" };
        let before = log(&vestibule, &[]).await;
        assert_eq!(shown(&before), (200, configured.into(), false));
        connection(&vestibule, 1).await;
        assert_eq!(vestibule.closed().len(), 0);

        let changed = put(&vestibule, "vestibule=debug", "10m").await;
        assert_eq!(shown(&changed), (200, "vestibule=debug".into(), true));
        assert_eq!(log(&vestibule, &[]).await.body, changed.body);
        connection(&vestibule, 2).await;
        until("the line of the connection", || {
            vestibule.closed().len() == 1
        })
        .await;

        // The last one counts, and its time ends.
        put(&vestibule, "vestibule::ledger=debug", "200ms").await;
        let over = |event: &Value| message(event).starts_with("log filter: its time is over");
        vestibule.event(over).await;
        let after = log(&vestibule, &[]).await;
        assert_eq!(shown(&after), (200, configured.into(), false));
        connection(&vestibule, 3).await;

        put(&vestibule, "debug", "1h").await;
        let back = log(&vestibule, &["-X", "DELETE"]).await;
        assert_eq!(shown(&back), (200, configured.into(), false));
        connection(&vestibule, 4).await;
        let mut vestibule = vestibule;
        vestibule.signal(rustix::process::Signal::TERM);
        assert_eq!(vestibule.wait().await.code(), Some(0));
        vestibule.whole_log().await;
        assert_eq!(vestibule.closed().len(), 1);
    }
}

#[tokio::test]
async fn a_wrong_filter_is_refused_with_words_and_the_change_needs_its_header() {
    let vestibule = start("").await;
    for (body, why) in [
        ("", "EOF"),
        ("{\"filter\":\"debug\"}", "missing field `for`"),
        (
            "{\"filter\":\"loud\",\"for\":\"10m\"}",
            "expected a log filter",
        ),
        ("{\"filter\":\"debug\",\"for\":\"10\"}", "at most 24h"),
        ("{\"filter\":\"debug\",\"for\":\"25h\"}", "at most 24h"),
    ] {
        let refused = log(&vestibule, &["-X", "PUT", "-d", body]).await;
        assert_eq!((refused.status, &*refused.code()), (400, "bad_request"));
        assert!(refused.body.contains(why), "{body}: {refused:?}");
    }
    let socket = vestibule.path("run/admin.sock");
    let refused = ask(&socket, "/v1/log", &["-X", "DELETE"]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        shown(&log(&vestibule, &[]).await),
        (200, "info".into(), false)
    );
}
