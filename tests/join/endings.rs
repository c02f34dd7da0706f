//! Tunnels to a front that end while the join or its front goes on.

use crate::common::changing::Site;
use crate::join::front::{Front, echo, worker};
use crate::{FACTS, echo_server};

#[tokio::test]
async fn a_tunnel_that_takes_no_more_streams_is_replaced() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = worker(&site, &[&front], &to, 1).await;
    let old = front.tunnel().await;
    let offer = old.offer().await;
    old.go_away().await;
    // The worker wants to offer another one in its place.
    let mut stream = offer.tunnelled(FACTS).await;
    let new = front.tunnel().await;
    echo(&mut new.offer().await.tunnelled(FACTS).await, b"new").await;
    echo(&mut stream, b"old").await;
}

#[tokio::test]
async fn a_tunnel_that_takes_no_more_streams_is_replaced_while_its_offers_wait() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = worker(&site, &[&front], &to, 1).await;
    let old = front.tunnel().await;
    let offer = old.offer().await;
    old.go_away().await;
    // Nothing else happens in the old one.
    let new = front.tunnel().await;
    echo(&mut new.offer().await.tunnelled(FACTS).await, b"new").await;
    echo(&mut offer.tunnelled(FACTS).await, b"old").await;
}
