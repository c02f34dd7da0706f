//! Connections that the embedding program has accepted itself.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use vestibule::{Config, ConnectionFilter, Endpoint, Outcome, Proxy, Running, ServeError};

use crate::BUDGET;
use crate::common::{soon, until};

/// One plaintext listener, and one that expects a PROXY protocol header from 10.0.0.0/8.
async fn running(extra: &str) -> Running {
    let config: Config = format!(
        r#"
        {extra}
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        [[listener]]
        name = "proxied"
        address = "127.0.0.1:0"
        accept_proxy_protocol = "required"
        trusted_proxies = ["10.0.0.0/8"]
        [[backend]]
        name = "echo"
        to = "echo"
        "#
    )
    .parse()
    .expect("a configuration");
    let proxy = Proxy::builder(config).bind().await;
    proxy.expect("bound").start()
}

fn peer(ip: [u8; 4]) -> Option<Endpoint> {
    Some(Endpoint::Tcp((ip, 4711).into()))
}

async fn is_echoed(client: &mut DuplexStream) {
    client.write_all(b"x").await.expect("room");
    let byte = soon("an echo", client.read_u8()).await;
    assert_eq!(byte.expect("an echo"), b'x');
}

#[tokio::test]
async fn a_drain_waits_for_it_and_takes_no_other() {
    let running = running("").await;
    let (mut client, ours) = duplex(64);
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("plain", ours, None));
    is_echoed(&mut client).await;
    let late = running.serve("plain", duplex(64).0, None);
    let drain = running.drain(BUDGET);
    let talk = async {
        assert_eq!(late.await, Err(ServeError::Draining));
        is_echoed(&mut client).await;
        client.shutdown().await.expect("open");
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    };
    // The drain begins before the exchange.
    let (drained, ()) = soon("a drain", async { tokio::join!(biased; drain, talk) }).await;
    assert_eq!(drained.cut, 0);
    let outcome = serving.join_next().await.expect("one").expect("no panic");
    assert_eq!(outcome, Ok(Outcome::Done));
}

#[tokio::test]
async fn a_future_that_is_never_polled_delays_no_drain() {
    let running = running("").await;
    let served = running.serve("plain", duplex(64).0, None);
    assert_eq!(soon("a drain", running.drain(None)).await.cut, 0);
    assert_eq!(served.await, Err(ServeError::Draining));
}

#[tokio::test]
async fn a_listener_that_is_not_configured_is_an_error() {
    let running = running("").await;
    let served = running.serve("http", duplex(64).0, None).await;
    assert_eq!(served, Err(ServeError::UnknownListener("http".into())));
}

#[tokio::test]
async fn limits_and_trust_hold_for_it() {
    let running = running("[limits]\nconnections_per_ip = 1").await;
    let (mut client, ours) = duplex(64);
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("plain", ours, peer([192, 0, 2, 7])));
    is_echoed(&mut client).await;
    let second = running.serve("plain", duplex(64).0, peer([192, 0, 2, 7]));
    assert_eq!(second.await, Ok(Outcome::OverLimit));
    let stranger = running.serve("proxied", duplex(64).0, peer([192, 0, 2, 8]));
    assert_eq!(stranger.await, Ok(Outcome::Denied));
}

#[tokio::test]
async fn a_header_in_front_of_it_says_who_the_client_is() {
    let running = running("").await;
    let (mut client, ours) = duplex(1024);
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("proxied", ours, peer([10, 0, 0, 1])));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
    client.write_all(header).await.expect("room");
    is_echoed(&mut client).await;
    let of_client = ConnectionFilter::all().peer([192, 0, 2, 7].into());
    assert_eq!(running.connections(&of_client).len(), 1);
}

#[tokio::test]
async fn it_ends_with_its_future() {
    let running = running("").await;
    let (mut client, ours) = duplex(64);
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("plain", ours, None));
    is_echoed(&mut client).await;
    serving.shutdown().await;
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    let aborted = || running.statistics().ended(Outcome::Aborted);
    until("it is recorded", || aborted() == 1).await;
    assert!(running.connections(&ConnectionFilter::all()).is_empty());
}
