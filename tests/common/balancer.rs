//! A load balancer's side of the PROXY protocol, and the proxy behind it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::client::{Front, Socket};
use super::soon;
use super::vestibule::Vestibule;

pub const LISTENERS: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
accept_proxy_protocol = "required"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[listener]]
name = "unix"
address = "unix:{dir}/front.sock"
accept_proxy_protocol = "required"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[listener]]
name = "plain"
address = "tcp:127.0.0.1:0"
accept_proxy_protocol = "required"
trusted_proxies = ["127.0.0.1"]
"#;

pub const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
pub const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A version 2 header with an address family and its addresses, and TLVs.
pub fn v2(family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, block].concat()
}

pub fn unix_addresses() -> Vec<u8> {
    let mut block = [0; 216];
    block[..11].copy_from_slice(b"/run/client");
    block[108..118].copy_from_slice(b"/run/front");
    v2(0x31, &block)
}

/// A header for the client 192.0.2.`host`.
pub fn from(host: u8) -> Vec<u8> {
    format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 51234 443\r\n").into_bytes()
}

pub async fn start(config: &str) -> Vestibule {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    Vestibule::start_whole(directory, &format!("{config}\n{LISTENERS}")).await
}

pub fn fronts(vestibule: &Vestibule) -> [Front; 2] {
    [
        Front::Tcp(vestibule.tcp()),
        Front::Unix(vestibule.path("front.sock")),
    ]
}

pub fn all_fronts(vestibule: &Vestibule) -> [Front; 3] {
    let [tcp, unix] = fronts(vestibule);
    [tcp, unix, Front::Tcp(vestibule.address("plain"))]
}

/// A connection on which `bytes` were sent.
pub async fn sent(front: &Front, bytes: &[u8]) -> Socket {
    let mut socket = front.socket().await.expect("a connection");
    // The proxy may close before it has read everything.
    let _ = socket.write_all(bytes).await;
    socket
}

/// Checks that the connection is closed without an answer.
pub async fn assert_closed(mut socket: Socket) {
    let mut answer = Vec::new();
    let _ = soon("a close", socket.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "answered {}", answer.escape_ascii());
}

pub async fn assert_echoes(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    client.write_all(b"word").await.expect("open");
    client.shutdown().await.expect("open");
    let mut answer = Vec::new();
    soon("the echo", client.read_to_end(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, b"word");
}

/// Sends `first` in one write with the first bytes that are written.
pub struct Joined {
    pub first: Vec<u8>,
    pub socket: Socket,
}

impl AsyncWrite for Joined {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = std::mem::take(&mut self.first);
        let both = [&first, bytes].concat();
        let written = Pin::new(&mut self.socket).poll_write(cx, &both);
        match written {
            Poll::Pending => self.first = first,
            Poll::Ready(Ok(written)) => return Poll::Ready(Ok(written - first.len())),
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl AsyncRead for Joined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}
