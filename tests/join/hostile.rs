//! Fronts that misbehave, and fronts that refuse.

use h2::Reason;
use hyper::StatusCode;
use tokio::io::AsyncReadExt;

use crate::common::changing::Site;
use crate::common::pki::{Authority, Subject};
use crate::common::vestibule::{Vestibule, message};
use crate::join::front::{Front, echo, without_facts, worker};
use crate::{FACTS, echo_server};

const TROUBLE: &str = "cannot serve the front: ";

#[tokio::test]
async fn wrong_facts_are_unknown_facts() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 2).await;
    let tunnel = front.tunnel().await;
    let long = format!(
        "{{\"peer\":\"192.0.2.9:1\",\"x\":\"{}\"}}",
        "y".repeat(15 * 1024)
    );
    for facts in [
        "{}",
        r#"{"id":[],"peer":7,"local":{},"tls":"","identity":[]}"#,
        r#"{"peer":"999.0.0.1:1","tls":{"version":"0"}}"#,
        &long,
    ] {
        let mut stream = tunnel.offer().await.tunnelled(facts).await;
        echo(&mut stream, b"served").await;
    }
    worker.ended("client_reset", 4).await;
}

#[tokio::test]
async fn an_answer_without_facts_is_reset_and_reported() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 2).await;
    let tunnel = front.tunnel().await;
    let (mut sending, _received) = without_facts(tunnel.offer().await);
    let reset = std::future::poll_fn(|cx| sending.poll_reset(cx)).await;
    assert_eq!(reset.expect("a reset"), Reason::CANCEL);
    let mut stream = tunnel.offer().await.give("not JSON");
    assert_eq!(stream.reset().await, Some(Reason::CANCEL));
    let said = worker.event(|it| message(it).starts_with(TROUBLE)).await;
    assert!(message(&said).contains("no facts"), "{said}");
}

#[tokio::test]
async fn a_refusal_is_logged_once_and_the_worker_stays() {
    for (reason, word) in [
        ("unknown", "no backend \\\"app\\\""),
        ("forbidden", "does not let this worker"),
        ("malformed", "does not understand"),
        ("", "status 403"),
    ] {
        let site = Site::new();
        let front = Front::new(&site).await;
        let (to, _server) = echo_server(&site);
        let worker = worker(&site, &[&front], &to, 2).await;
        let tunnel = front.tunnel().await;
        for _ in 0..2 {
            let offer = tunnel.offer().await;
            offer.refuse(StatusCode::FORBIDDEN, reason);
        }
        let said = worker.event(|it| message(it).starts_with(TROUBLE)).await;
        assert!(said.to_string().contains(word), "{said}");
        assert_eq!(said["level"], "WARN");
        let log = worker.log();
        let times = log.iter().filter(|it| message(it).starts_with(TROUBLE));
        assert_eq!(times.count(), 1, "{reason}");
        drop(tunnel);
    }
}

#[tokio::test]
async fn a_busy_front_is_asked_again_soon() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = worker(&site, &[&front], &to, 1).await;
    let tunnel = front.tunnel().await;
    for _ in 0..3 {
        let offer = tunnel.offer().await;
        offer.refuse(StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    echo(&mut tunnel.offer().await.tunnelled(FACTS).await, b"hello").await;
}

#[tokio::test]
async fn a_front_that_resets_a_connection_before_it_is_taken_gets_the_next_offer() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = worker(&site, &[&front], &to, 1).await;
    let tunnel = front.tunnel().await;
    for _ in 0..10 {
        let mut stream = tunnel.offer().await.give(FACTS);
        stream.sending.send_reset(Reason::CANCEL);
    }
    echo(&mut tunnel.offer().await.tunnelled(FACTS).await, b"hello").await;
}

#[tokio::test]
async fn a_tunnel_that_is_cut_is_replaced() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 2).await;
    for _ in 0..3 {
        let tunnel = front.tunnel().await;
        let _stream = tunnel.offer().await.tunnelled(FACTS).await;
        tunnel.cut().await;
    }
    worker.ended("client_truncated", 3).await;
    // One that is cut before the first byte of HTTP/2.
    drop(front.connection().await);
    let tunnel = front.tunnel().await;
    echo(&mut tunnel.offer().await.tunnelled(FACTS).await, b"hello").await;
}

#[tokio::test]
async fn a_front_with_another_protocol_is_named() {
    for (alpn, word) in [
        ("http/1.1", "speaks another protocol"),
        ("", "speaks another protocol"),
    ] {
        let site = Site::new();
        let front = Front::with(&site, "127.0.0.1:0", alpn).await;
        let (to, _server) = echo_server(&site);
        let worker = worker(&site, &[&front], &to, 2).await;
        let said = worker.event(|it| message(it).starts_with(TROUBLE)).await;
        assert!(message(&said).contains(word), "{said}");
    }
}

#[tokio::test]
async fn a_front_that_does_not_accept_our_certificate_is_named() {
    let site = Site::new();
    let front = crate::join::real::front(&site, "front", "127.0.0.1:0").await;
    let (to, _server) = echo_server(&site);
    // The worker's certificate is from another authority than the front trusts.
    let issued = Authority::root("strangers").issue(&Subject::named("worker"));
    issued.write(site.directory.path(), "worker");
    let worker = crate::join::real::worker(&site, "worker", &[front.tcp()], &to).await;
    let is_it = |it: &serde_json::Value| message(it).contains("accept our certificate");
    let said = worker.event(is_it).await;
    assert_eq!(said["level"], "WARN");
}

/// A Vestibule without a route for the worker's protocol denies access, which has nothing to do with certificates.
#[tokio::test]
async fn a_front_that_denies_the_workers_protocol_is_not_blamed_on_a_certificate() {
    let site = Site::new();
    let front = crate::join::real::front(&site, "front", "127.0.0.1:0").await;
    let (to, _server) = echo_server(&site);
    crate::join::real::certificate(&site);
    let config = crate::join::real::worker_config("worker", &[front.tcp()], &to, 2);
    let config = config.replace("[join.tls]", "[join.tls]\nalpn = \"other\"");
    let worker = Vestibule::start_as(&site.directory, "worker.toml", &config).await;
    let said = worker.event(|it| message(it).starts_with(TROUBLE)).await;
    assert!(message(&said).contains("ALPN"), "{said}");
    assert!(
        !message(&said).contains("does not accept our certificate"),
        "{said}"
    );
}

#[tokio::test]
async fn a_silent_front_is_left_within_fifteen_seconds() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 1).await;
    // It reads, and says nothing: neither SETTINGS nor an answer to PING.
    let mut connection = front.connection().await;
    let began = std::time::Instant::now();
    let read = async {
        let mut room = [0; 1024];
        while !matches!(connection.read(&mut room).await, Ok(0) | Err(_)) {}
    };
    crate::common::soon("the end", read).await;
    assert!(began.elapsed().as_secs() < 15);
    worker.event(|it| message(it).starts_with(TROUBLE)).await;
}
