//! Who gets no connection, and why.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::common::changing::Site;
use crate::common::network_worker::{Answer, Host};
use crate::common::soon;
use crate::common::vestibule::{Relay, Vestibule};
use crate::{config, connect, offered, start, watch, worker};

const UNKNOWN: &str = "claim 00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn each_refusal_has_its_status_and_its_reason() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let stranger = Host::open(&vestibule, &site, &site.client("alice")).await;
    for (host, backend, line, expected) in [
        (&host, "app", "", (400, "malformed")),
        (&host, "app", "ACCEPT", (400, "malformed")),
        (&host, "app", "accept app", (400, "malformed")),
        (&host, "app", "accept ", (400, "malformed")),
        (&host, "app", "claim", (400, "malformed")),
        (&host, "app", "claim ", (400, "malformed")),
        (&host, "app", "claim 7f8c1d9e", (400, "malformed")),
        (&host, "app", &format!("{UNKNOWN} "), (400, "malformed")),
        (
            &host,
            "app",
            &UNKNOWN.replace(' ', "  "),
            (400, "malformed"),
        ),
        (&host, "app", "register unix:/run/x", (400, "malformed")),
        (&host, "app", UNKNOWN, (404, "unknown")),
        (&host, "nowhere", "accept", (404, "unknown")),
        (&host, "app:1", "accept", (404, "unknown")),
        (&host, "other", "accept", (403, "forbidden")),
        (&host, "other", "watch", (403, "forbidden")),
        (&host, "other", UNKNOWN, (403, "forbidden")),
        (&host, "local", "accept", (403, "forbidden")),
        (&host, "echo", "accept", (403, "forbidden")),
        (&stranger, "app", "accept", (403, "forbidden")),
        (&stranger, "app", "nonsense", (403, "forbidden")),
    ] {
        let (status, reason) = host.ask(backend, line).await.refused().await;
        assert_eq!((status, &*reason), expected, "{backend}: {line:?}");
    }
    let mut twice = HeaderMap::new();
    twice.append("vestibule", HeaderValue::from_static("accept"));
    twice.append("vestibule", HeaderValue::from_static("accept"));
    let binary = HeaderValue::from_bytes(b"accept\xff").expect("a value");
    let binary = HeaderMap::from_iter([("vestibule".parse().expect("a name"), binary)]);
    let accept = HeaderValue::from_static("accept");
    let accept = HeaderMap::from_iter([("vestibule".parse().expect("a name"), accept)]);
    for (headers, is_over) in [(twice, false), (binary, false), (accept, true)] {
        let refused = host.ask_with("app", headers, is_over).await.refused().await;
        assert_eq!(refused, (400, "malformed".to_owned()));
    }
    // The tunnel has taken no harm.
    let _client = connect(&vestibule).await;
    host.accept("app").await;
}

#[tokio::test]
async fn a_listener_without_workers_takes_none() {
    let site = Site::new();
    let config = config(Relay::Auto, "").replace("workers = true\n", "");
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
    let host = worker(&vestibule, &site).await;
    for line in ["accept", "watch", "nonsense"] {
        let refused = host.ask("app", line).await.refused().await;
        assert_eq!(refused, (403, "forbidden".to_owned()));
    }
}

#[tokio::test]
async fn a_worker_cannot_claim_a_connection_of_another_backend() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let mut watch = watch(&vestibule).await;
    let (_client, id) = offered(&vestibule, &mut watch, b"").await;
    // It may serve its own backend, and knows the id of a connection of another one.
    let other = Host::open(&vestibule, &site, &site.client("other")).await;
    for (backend, expected) in [("other", 404), ("app", 403)] {
        let answer = other.claim(backend, &id).await;
        assert!(
            matches!(answer, Answer::No(status, _) if status == expected),
            "{answer:?}"
        );
    }
    // It may serve both, and says the wrong one.
    let both = Host::open(&vestibule, &site, &site.client("both")).await;
    assert!(matches!(both.claim("other", &id).await, Answer::No(404, _)));
    // Nobody was told of it.
    assert!(matches!(both.claim("app", &id).await, Answer::Ok(..)));
}

#[tokio::test]
async fn workers_beyond_the_limit_are_told_that_the_gate_is_busy() {
    let site = Site::new();
    let vestibule = start(&site, "[gate]\nmax_clients = 3\n").await;
    let host = worker(&vestibule, &site).await;
    // A local worker counts as well.
    let _local = watch(&vestibule).await;
    let mut offers = host.offer("app", 1).await;
    offers.push(host.ask("app", "accept").await);
    let refused = host.ask("app", "accept").await.refused().await;
    assert_eq!(refused, (429, "busy".to_owned()));
    // One that has left makes room.
    offers.remove(0).leave();
    until_free(&host).await;
    offers.push(host.ask("app", "accept").await);
    let refused = host.ask("app", "watch").await.refused().await;
    assert_eq!(refused, (429, "busy".to_owned()));
    // And so does one that has a connection.
    let _client = connect(&vestibule).await;
    let (_, mut stream) = offers.remove(0).granted().await;
    stream.take();
    until_free(&host).await;
}

/// Waits until the gate has a place.
async fn until_free(host: &Host) {
    soon("a place", async {
        loop {
            match host.ask("app", UNKNOWN).await.refused().await.0 {
                429 => tokio::task::yield_now().await,
                status => break assert_eq!(status, 404),
            }
        }
    })
    .await;
}
