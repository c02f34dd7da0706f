//! Clients that this worker does not serve, although the front has admitted them.

use h2::Reason;

use crate::common::changing::Site;
use crate::common::vestibule::Vestibule;
use crate::join::front::{Front, echo, join};
use crate::{FACTS, echo_server};

async fn limited(site: &Site, front: &Front, to: &str, limit: &str) -> Vestibule {
    let config = join(&[front], to, 2);
    site.client("worker").write(site.directory.path(), "worker");
    let config = format!("{config}\n[limits]\n{limit} = 1\n");
    Vestibule::start_whole(std::sync::Arc::clone(&site.directory), &config).await
}

#[tokio::test]
async fn a_client_above_its_limit_does_not_come_back_and_keeps_nobody_waiting() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = limited(&site, &front, &to, "connections_per_identity").await;
    let tunnel = front.tunnel().await;
    let mut first = tunnel.offer().await.tunnelled(FACTS).await;
    let waiting = tunnel.offer().await;
    let mut second = tunnel.offer().await.tunnelled(FACTS).await;
    assert_eq!(second.reset().await, Some(Reason::CANCEL));
    worker.ended("over_limit", 1).await;
    let other = FACTS.replace("alice", "bob");
    let mut other = waiting.tunnelled(&other).await;
    echo(&mut other, b"other").await;
    echo(&mut first, b"first").await;
}

#[tokio::test]
async fn the_connections_of_an_address_are_for_the_front_to_limit() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = limited(&site, &front, &to, "connections_per_ip").await;
    let tunnel = front.tunnel().await;
    let mut first = tunnel.offer().await.tunnelled(FACTS).await;
    let mut second = tunnel.offer().await.tunnelled(FACTS).await;
    echo(&mut first, b"first").await;
    echo(&mut second, b"second").await;
}
