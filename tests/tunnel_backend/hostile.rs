//! Servers of tunnels that refuse, die, say nothing, or change their mind.

use super::pair::{connect, site, start_near};
use super::server::{Server, asked, status};
use crate::common::vestibule::Relay;

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_asked_once() {
    for code in [400, 403, 404, 405] {
        let site = site();
        let server = Server::new(&site).await;
        let near = start_near(&site, Relay::Auto, &[server.address()], "").await;
        let _client = connect(&near).await;
        let mut tunnel = server.tunnel().await;
        let (request, mut respond) = asked(&mut tunnel).await;
        assert_eq!(request.uri().to_string(), "db:5432");
        respond.send_response(status(code), true).expect("open");
        let ended = near.ended("backend_refused", 1);
        tokio::select! {
            () = ended => {}
            again = asked(&mut tunnel) => panic!("it asks again: {:?}", again.0),
        }
    }
}
