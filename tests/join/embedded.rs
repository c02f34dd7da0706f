//! A join in a program that embeds Vestibule.

use crate::common::changing::Site;
use crate::join::front::{Front, echo};
use crate::{FACTS, echo_server};

#[tokio::test]
async fn a_program_can_join_a_front_on_its_own_runtime() {
    use vestibule::options::{BackendTlsOptions, CertificateOptions, DataSource, JoinOptions};
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let issued = site.client("worker");
    let certificate =
        || CertificateOptions::from_pem(issued.chain.as_bytes(), issued.key.as_bytes());
    let tls = BackendTlsOptions::default()
        .server_name("localhost")
        .ca([DataSource::memory(site.authority.pem())])
        .certificate(certificate());
    let address = |text: &str| text.parse::<vestibule::Address>().expect("an address");
    let join = JoinOptions::new(
        "app",
        [address(&front.address)],
        [address(&to)],
        certificate(),
    );
    let config = vestibule::Config::builder().join(join.offers(2).tls(tls));
    let config = config.build().expect("a configuration");
    let running = vestibule::Proxy::builder(config)
        .bind()
        .await
        .expect("bound")
        .start();
    let mut tunnel = front.tunnel().await;
    let mut stream = tunnel.offer().await.tunnelled(FACTS).await;
    echo(&mut stream, b"hello").await;
    let open = running.connections(&vestibule::ConnectionFilter::all().listener("join:app"));
    assert_eq!(open.len(), 1);
    let drain = running.drain(std::time::Duration::from_secs(30));
    let end = async {
        stream.end().expect("open");
        assert_eq!(stream.rest().await.expect("a clean end"), b"");
        drop(stream);
        tunnel.ended().await;
    };
    let (drained, ()) = tokio::join!(drain, end);
    assert_eq!(drained.cut, 0);
}
