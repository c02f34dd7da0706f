//! A site whose configuration and certificates change while it runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig};

use super::client::config_for;
use super::pki::{Authority, Issued, Subject, replace};
use super::soon;
use super::vestibule::{Vestibule, complete, message};

pub type Client = TlsStream<TcpStream>;

/// A site with an authority of its own and certificates that may change.
pub struct Site {
    pub directory: Arc<TempDir>,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Self {
        let site = Self {
            directory: Arc::new(tempfile::tempdir().expect("a directory")),
            authority: Authority::root("everybody"),
        };
        replace(&site.path("ca.pem"), &site.authority.pem());
        site.revoke(&[]);
        site.server(&["localhost"]);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn server(&self, names: &[&str]) {
        let issued = self.authority.issue(&Subject::host(names));
        issued.write(self.directory.path(), "server");
    }

    pub fn client(&self, name: &'static str) -> Issued {
        self.authority.issue(&Subject::named(name))
    }

    pub fn revoke(&self, serials: &[u64]) {
        replace(
            &self.path("revoked.pem"),
            &self.authority.revocations(serials),
        );
    }

    pub async fn start(&self, rest: &str) -> Vestibule {
        Vestibule::start_whole(Arc::clone(&self.directory), &config(rest)).await
    }

    /// Replaces the configuration file.
    pub fn configure(&self, text: &str) {
        replace(
            &self.path("vestibule.toml"),
            &complete(&self.directory, text),
        );
    }

    pub fn config(&self, certificate: Option<&Issued>) -> Arc<ClientConfig> {
        Arc::new(config_for(ALL_VERSIONS, &self.authority.pem(), certificate))
    }
}

pub fn config(rest: &str) -> String {
    format!("{LISTENER}{rest}")
}

pub const LISTENER: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{dir}/server.pem", key = "{dir}/server-key.pem" } ]
client_auth = "optional"
client_ca = "{dir}/ca.pem"
crl = "{dir}/revoked.pem"
"#;

pub const ECHO: &str = "
[[backend]]
name = \"echo\"
to = \"echo\"
";

pub async fn connect(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> io::Result<Client> {
    let socket = TcpStream::connect(vestibule.tcp()).await?;
    socket.set_nodelay(true)?;
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::clone(config))
        .connect(name, socket)
        .await
}

/// The certificate that a new client gets. A client that resumes a session gets none.
pub async fn shown(vestibule: &Vestibule, site: &Site) -> Vec<u8> {
    let client = connect(vestibule, &site.config(None)).await;
    let client = client.expect("a handshake");
    let (_, connection) = client.get_ref();
    let chain = connection.peer_certificates().expect("a certificate");
    chain[0].to_vec()
}

/// A connection that works.
pub async fn open(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> Client {
    let mut client = connect(vestibule, config).await.expect("a handshake");
    echo(&mut client).await.expect("an echo");
    client
}

pub async fn echo(client: &mut Client) -> io::Result<()> {
    client.write_all(b"word").await?;
    let mut word = [0; 4];
    client.read_exact(&mut word).await?;
    assert_eq!(&word, b"word");
    Ok(())
}

/// Waits until Vestibule has reloaded this many times.
pub async fn reloaded(vestibule: &Vestibule, times: usize) {
    vestibule.said("reloaded", times).await;
}

pub async fn refused(vestibule: &Vestibule) -> String {
    let event = vestibule
        .event(|event| message(event).starts_with("reload failed, the old configuration stays: "))
        .await;
    message(&event).to_owned()
}

/// Waits until Vestibule has refused this many reloads.
pub async fn refusals(vestibule: &Vestibule, times: usize) {
    soon("a refusal", async {
        let is_one = |event: &serde_json::Value| message(event).starts_with("reload failed");
        while vestibule.log().iter().filter(|event| is_one(event)).count() < times {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
