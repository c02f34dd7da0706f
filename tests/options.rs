//! A configuration that is built in code, with certificates and lists from memory instead of files.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::client::config_for;
use common::pki::{Authority, Issued, Status, Subject};
use common::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use vestibule::options::{
    BackendOptions, BackendTarget, CertificateOptions, ClientAuthMode, DataSource, GateOptions,
    ListenerOptions, ListenerTlsOptions, SessionTickets,
};
use vestibule::{Config, Proxy};

struct World {
    servers: Authority,
    server: Issued,
    clients: Authority,
    alice: Issued,
}

impl World {
    fn new() -> Self {
        let servers = Authority::root("servers");
        let server = servers.issue(&Subject::host(&["localhost"]));
        let clients = Authority::root("clients");
        let alice = clients.issue(&Subject::named("alice"));
        Self {
            servers,
            server,
            clients,
            alice,
        }
    }

    /// A claimed backend of this program, for clients that the authority `clients` has not revoked.
    fn config(&self, revoked: &[u64]) -> Config {
        let signer = self.servers.signer();
        let staple = self
            .servers
            .answer(self.server.serial, Status::Good, &signer);
        let certificate = CertificateOptions::from_pem(&*self.server.chain, &*self.server.key);
        let list = self.clients.revocations(revoked);
        let tls = ListenerTlsOptions::new(certificate.ocsp(DataSource::memory(staple)))
            .client_auth(ClientAuthMode::Required)
            .client_ca([DataSource::memory(self.clients.pem())])
            .crl([DataSource::memory(list)])
            .tickets(SessionTickets::Secret(DataSource::memory([7; 32])));
        let address = "127.0.0.1:0".parse().expect("an address");
        let built = Config::builder()
            .listener(ListenerOptions::new("https", address).tls(tls))
            .backend(BackendOptions::new("app", BackendTarget::Gate))
            .gate(GateOptions::none())
            .build();
        built.expect("a configuration")
    }

    /// What alice's client receives from the server.
    async fn exchange(&self, address: &str) -> io::Result<String> {
        let authority = self.servers.pem();
        let config = config_for(rustls::ALL_VERSIONS, &authority, Some(&self.alice));
        let connector = TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(address).await?;
        let name = "localhost".try_into().expect("a name");
        let mut client = connector.connect(name, socket).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

#[tokio::test]
async fn a_configuration_in_memory_serves_and_reloads_without_a_file() {
    let world = World::new();
    let config = world.config(&[]);
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert!(config.files().is_empty());
    let proxy = Proxy::builder(config).bind().await.expect("bound");
    let address = proxy.addresses()["https"].to_string().replace("tcp:", "");
    let mut app = proxy.backend("app");
    let mut running = proxy.start();

    let serve = async {
        let mut connection = app.accept().await.expect("a connection");
        let facts = connection.facts().to_json();
        connection.write_all(facts.as_bytes()).await.expect("open");
        connection.shutdown().await.expect("open");
    };
    let (answer, ()) = soon("an exchange", async {
        tokio::join!(world.exchange(&address), serve)
    })
    .await;
    let facts = answer.expect("alice may come in");
    assert!(facts.contains("alice"), "{facts}");

    let revoked = world.config(&[world.alice.serial]);
    running.reload(revoked).await.expect("the same listeners");
    let refused = soon("a refusal", world.exchange(&address)).await;
    assert!(refused.is_err(), "{refused:?}");
    running.drain(Duration::from_secs(30)).await;
}
