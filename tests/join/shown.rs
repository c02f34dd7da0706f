//! What operators see of a join and of network workers, at both ends.

use serde_json::Value;
use tokio::time::{Duration, sleep};

use super::real::{certificate, client, echo, front, metric, worker};
use crate::common::admin::ask;
use crate::common::changing::Site;
use crate::common::process::{output, vestibule};
use crate::common::soon;
use crate::common::vestibule::{Vestibule, message};
use crate::echo_server;

/// The first state in which something is so. The bound is that of [`soon`].
async fn status(site: &Site, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let socket = site.path(&format!("{name}/admin.sock"));
    soon("a state", async {
        loop {
            let status = ask(&socket, "/v1/status", &[]).await.json();
            if is_so(&status) {
                return status;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// What a command prints about the Vestibule with this name.
async fn said(site: &Site, name: &str, command: &str) -> String {
    let socket = site.path(&format!("{name}/admin.sock"));
    let mut vestibule = vestibule();
    vestibule
        .arg(command)
        .arg("--admin")
        .arg(format!("unix:{}", socket.display()));
    output(vestibule).await.text()
}

fn front_of(status: &Value) -> &Value {
    &status["joins"][0]["fronts"][0]
}

#[tokio::test]
async fn tunnels_offers_and_fronts_are_shown_at_both_ends() {
    let site = Site::new();
    certificate(&site);
    let (to, _server) = echo_server(&site);
    let front = front(&site, "front", "127.0.0.1:0").await;
    let address = front.tcp();
    let _worker = worker(&site, "worker", std::slice::from_ref(&address), &to).await;
    let is_complete = |it: &Value| front_of(it)["offers"] == 8;
    let worker = status(&site, "worker", is_complete).await;
    let shown = front_of(&worker);
    assert_eq!(
        (&shown["state"], &shown["trouble"]),
        (&"joined".into(), &Value::Null)
    );
    assert_eq!(
        (&shown["tunnels"], &shown["served"]),
        (&2.into(), &0.into())
    );
    assert_eq!(shown["address"], format!("tcp:{address}"));
    assert_eq!(worker["joins"][0]["server"], "up");
    assert_eq!(worker["joins"][0]["addresses"][0]["address"], to);

    let waiting = |it: &Value| it["backends"][0]["workers"]["network"] == 8;
    let at_front = status(&site, "front", waiting).await;
    let workers = &at_front["backends"][0]["workers"];
    assert_eq!(
        (&workers["tunnels"], &workers["local"]),
        (&2.into(), &0.into())
    );
    let listeners = at_front["listeners"].as_array().expect("listeners");
    let of = |name: &str| listeners.iter().find(|it| it["name"] == name);
    assert_eq!(of("tcp").expect("it")["tunnels"]["open"], 2);
    assert_eq!(of("clients").expect("it")["tunnels"], Value::Null);

    let mut client = client(&site, "front").await;
    echo(&mut client, b"hello").await;
    let is_served = |it: &Value| front_of(it)["offers"] == 8 && front_of(it)["connections"] == 1;
    let worker = status(&site, "worker", is_served).await;
    assert_eq!(front_of(&worker)["served"], 1);
    let has_nine = |it: &Value| {
        let listeners = it["listeners"].as_array().into_iter().flatten();
        listeners
            .map(|it| &it["tunnels"]["streams"])
            .any(|it| *it == 9)
    };
    status(&site, "front", has_nine).await;

    let text = said(&site, "worker", "status").await;
    assert!(text.contains("local server up"), "{text}");
    assert!(
        text.contains("2 tunnels, 8 offers waiting, 1 open, 1 served"),
        "{text}"
    );
    let text = said(&site, "front", "status").await;
    assert!(text.contains("2 tunnels, 9 streams"), "{text}");
    assert!(
        text.contains("waiting workers: 0 local, 8 network in 2 tunnels"),
        "{text}"
    );
    metrics(&site, &address).await;
    carriers(&site).await;
}

async fn metrics(site: &Site, address: &str) {
    let labels = format!("{{backend=\"app\",front=\"tcp:{address}\"}}");
    for (name, value) in [
        ("vestibule_join_front_up", 1.0),
        ("vestibule_join_offers", 8.0),
        ("vestibule_join_connections_total", 1.0),
    ] {
        let metric = metric(site, "worker", &format!("{name}{labels} ")).await;
        assert_eq!(metric, Some(value), "{name}");
    }
    for (name, at, value) in [
        ("vestibule_join_server_up{backend=\"app\"} ", "worker", 1.0),
        (
            "vestibule_listener_tunnels{listener=\"tcp\"} ",
            "front",
            2.0,
        ),
        (
            "vestibule_listener_tunnel_streams{listener=\"tcp\"} ",
            "front",
            9.0,
        ),
        (
            "vestibule_backend_workers_waiting{backend=\"app\",kind=\"network\"} ",
            "front",
            8.0,
        ),
        (
            "vestibule_backend_workers_waiting{backend=\"app\",kind=\"local\"} ",
            "front",
            0.0,
        ),
    ] {
        assert_eq!(metric(site, at, name).await, Some(value), "{name}");
    }
}

/// The connections that carry tunnels say so, and have no backend.
async fn carriers(site: &Site) {
    let socket = site.path("front/admin.sock");
    let page = ask(&socket, "/v1/connections", &[]).await.json();
    let rows = page["connections"].as_array().expect("rows");
    let streams = rows.iter().filter_map(|it| it["streams"].as_u64());
    assert_eq!(streams.sum::<u64>(), 9);
    assert_eq!(rows.len(), 3);
    let text = said(site, "front", "connections").await;
    assert!(
        text.contains("TUNNEL") && text.contains("AUTHORITY"),
        "{text}"
    );
    assert_eq!(text.matches("carries ").count(), 2, "{text}");
    // At the worker there is no tunnel that a client has brought.
    let text = said(site, "worker", "connections").await;
    assert!(!text.contains("TUNNEL"), "{text}");
}

#[tokio::test]
async fn a_front_that_is_away_and_a_server_that_is_down_are_shown_with_the_reason() {
    let site = Site::new();
    certificate(&site);
    let front = front(&site, "front", "127.0.0.1:0").await;
    let to = format!("unix:{}", site.path("nowhere.sock").display());
    let worker = worker(&site, "worker", &[front.tcp()], &to).await;
    worker.said("joined the front", 1).await;
    let client = client(&site, "front").await;
    let down = |it: &Value| it["joins"][0]["server"] == "down" && front_of(it)["offers"] == 0;
    status(&site, "worker", down).await;
    assert!(
        said(&site, "worker", "status")
            .await
            .contains("local server down")
    );
    drop((front.kill().await, client));
    let failing = |it: &Value| front_of(it)["state"] == "failing";
    let status = status(&site, "worker", failing).await;
    let trouble = front_of(&status)["trouble"].as_str().expect("a reason");
    let text = said(&site, "worker", "status").await;
    assert!(text.contains("failing since 20"), "{text}");
    assert!(!trouble.is_empty());
    let up = metric(
        &site,
        "worker",
        "vestibule_join_server_up{backend=\"app\"} ",
    )
    .await;
    assert_eq!(up, Some(0.0));
}

/// How often the log has warned about a front, and has said that it was joined.
fn counts(worker: &Vestibule) -> [usize; 2] {
    let log = worker.log();
    ["cannot serve the front", "joined the front"]
        .map(|word| log.iter().filter(|it| is_said(it, word)).count())
}

fn is_said(event: &Value, word: &str) -> bool {
    let is_loud = event["level"] == "WARN" || event["level"] == "INFO";
    is_loud && message(event).starts_with(word)
}

#[tokio::test]
async fn a_restart_of_a_front_is_one_warning_and_one_word_that_it_is_joined() {
    let site = Site::new();
    certificate(&site);
    let (to, _server) = echo_server(&site);
    let old = front(&site, "old", "127.0.0.1:0").await;
    let address = old.tcp();
    let worker = worker(&site, "worker", std::slice::from_ref(&address), &to).await;
    let away = |it: &Value| front_of(it)["state"] == "failing";
    let back = |it: &Value| front_of(it)["state"] == "joined" && front_of(it)["tunnels"] == 2;
    status(&site, "worker", back).await;
    assert_eq!(counts(&worker), [0, 1]);
    assert_eq!(old.terminate().await, Some(0));
    status(&site, "worker", away).await;
    let next = front(&site, "next", &address).await;
    status(&site, "worker", back).await;
    assert_eq!(counts(&worker), [1, 2]);
    next.kill().await;
    status(&site, "worker", away).await;
    let _last = front(&site, "last", &address).await;
    status(&site, "worker", back).await;
    assert_eq!(counts(&worker), [2, 3]);
}
