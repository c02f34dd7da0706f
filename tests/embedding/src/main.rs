//! Serves a connection of its own over a stream in memory, through TLS; finds it, and ends it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use vestibule::options::{
    BackendOptions, BackendTarget, CertificateOptions, ListenerOptions, ListenerTlsOptions,
};
use vestibule::{Config, ConnectionFilter, ConnectionState, Outcome, Proxy};

const CA: &[u8] = include_bytes!("../../../certs/ca.pem");
const CHAIN: &[u8] = include_bytes!("../../../certs/server.pem");
const KEY: &[u8] = include_bytes!("../../../certs/server-key.pem");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tls = ListenerTlsOptions::new(CertificateOptions::from_pem(CHAIN, KEY));
    let config = Config::builder()
        .listener(ListenerOptions::new("https", "tcp:127.0.0.1:0".parse()?).tls(tls))
        .backend(BackendOptions::new("echo", BackendTarget::Echo))
        .build()?;
    let running = Proxy::builder(config).bind().await?.start();

    let (ours, theirs) = duplex(64 * 1024);
    let peer: std::net::SocketAddr = "192.0.2.7:4711".parse()?;
    let served = running.serve("https", theirs, Some(peer.into()));
    let talk = async {
        let mut client = connector()?
            .connect(ServerName::try_from("localhost")?, ours)
            .await?;
        client.write_all(b"hello").await?;
        let mut echo = [0; 5];
        client.read_exact(&mut echo).await?;
        assert_eq!(&echo, b"hello");

        let filter = ConnectionFilter::all().peer(peer.ip());
        let open = running.connections(&filter);
        let [connection] = open.as_slice() else {
            return Err(format!("{} connections are open", open.len()).into());
        };
        assert_eq!(connection.state, ConnectionState::Relaying);
        assert_eq!((connection.bytes_in, connection.bytes_out), (5, 5));
        let tls = connection.facts.tls.as_ref().ok_or("there is no TLS")?;
        assert_eq!(tls.sni.as_deref(), Some("localhost"));

        assert_eq!(running.kill(&filter), 1);
        // It ends with close_notify: a truncation would be an error.
        assert_eq!(client.read(&mut echo).await?, 0);
        Ok::<(), Box<dyn Error>>(())
    };
    let (outcome, talked) = tokio::join!(served, talk);
    talked?;
    assert_eq!(outcome?, Outcome::Killed);
    assert!(running.connections(&ConnectionFilter::all()).is_empty());
    let drained = running.drain(Duration::from_secs(30)).await;
    assert_eq!(drained.cut, 0);
    println!("served, listed and killed");
    Ok(())
}

fn connector() -> Result<TlsConnector, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CA)?)?;
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}
