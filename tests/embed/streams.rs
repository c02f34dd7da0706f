//! What streams of a program may do, and what a program may do with their futures.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, ReadBuf, duplex,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, rustls};
use vestibule::{Config, ConnectionFilter, ConnectionState, Outcome, Proxy, Running, ServeError};

use crate::common::{client, soon, until};

/// One listener in the clear and one with TLS, in front of this backend.
async fn running(extra: &str, to: &str) -> Running {
    let config = config(extra, to).parse::<Config>();
    let proxy = Proxy::builder(config.expect("a configuration")).bind();
    proxy.await.expect("bound").start()
}

fn config(extra: &str, to: &str) -> String {
    format!(
        r#"
        {extra}
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        [[listener]]
        name = "https"
        address = "127.0.0.1:0"
        [listener.tls]
        certificates = [ {{ chain = "certs/server.pem", key = "certs/server-key.pem" }} ]
        [[backend]]
        name = "app"
        to = "{to}"
        "#
    )
}

async fn is_echoed(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    client.write_all(b"x").await.expect("room");
    client.flush().await.expect("room");
    let byte = soon("an echo", client.read_u8()).await;
    assert_eq!(byte.expect("an echo"), b'x');
}

#[tokio::test]
async fn a_stream_that_keeps_bytes_until_it_is_flushed_is_flushed() {
    for (listener, relay) in [("plain", "stream"), ("https", "stream"), ("https", "auto")] {
        let runtime = format!("[runtime]\nrelay = \"{relay}\"");
        let running = running(&runtime, "echo").await;
        let (theirs, ours) = duplex(64 * 1024);
        let mut serving = JoinSet::new();
        serving.spawn(running.serve(listener, BufStream::new(ours), None));
        let mut client: Box<dyn Both> = match listener {
            "plain" => Box::new(theirs),
            _ => {
                let connector = TlsConnector::from(client::config(rustls::ALL_VERSIONS));
                let name = "localhost".try_into().expect("a name");
                let connected = soon("a handshake", connector.connect(name, theirs)).await;
                Box::new(connected.expect("a handshake"))
            }
        };
        is_echoed(&mut client).await;
        client.shutdown().await.expect("open");
        let end = soon("an end", client.read(&mut [0])).await;
        assert_eq!(end.expect("an end"), 0);
        let outcome = serving.join_next().await.expect("one").expect("no panic");
        assert_eq!(outcome, Ok(Outcome::Done));
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

#[tokio::test]
async fn a_backend_reads_a_reset_when_the_future_is_dropped_in_the_middle() {
    let backend = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = backend.local_addr().expect("bound");
    let running = running("", &format!("tcp:{address}")).await;
    let (mut client, ours) = duplex(64);
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("plain", ours, None));
    client.write_all(b"half a").await.expect("room");
    let (mut stream, _) = soon("a dial", backend.accept()).await.expect("a dial");
    let mut request = [0; 6];
    soon("the half", stream.read_exact(&mut request))
        .await
        .expect("the half");
    serving.shutdown().await;
    let end = soon("an end", stream.read(&mut [0])).await;
    let error = end.expect_err("not a whole request");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_polled_no_more_holds_up_no_cut() {
    let running = running("", "echo").await;
    let (mut client, ours) = duplex(64);
    let mut served = pin!(running.serve("plain", ours, None));
    tokio::select! {
        biased;
        outcome = &mut served => panic!("{outcome:?}"),
        () = is_echoed(&mut client) => {}
    }
    let drained = soon("a drain", running.drain(Duration::ZERO)).await;
    assert_eq!(drained.cut, 1);
    assert_eq!(soon("its end", served).await, Ok(Outcome::Drained));
}

/// A connection that has reached its lifetime with bytes for a client that takes none of them.
async fn delivering(running: &Running, serving: &mut JoinSet<Served>) -> DuplexStream {
    let (mut client, ours) = duplex(64);
    serving.spawn(running.serve("plain", ours, None));
    client.write_all(&[0; 1000]).await.expect("an echo");
    let closing = ConnectionFilter::all().state(ConnectionState::Closing);
    until("its lifetime is over", || {
        running.connections(&closing).len() == 1
    })
    .await;
    client
}

type Served = Result<Outcome, ServeError>;

const SHORT_LIFE: &str = "[timeouts]\nlifetime = \"1s\"\nhalf_close = \"unlimited\"";

#[tokio::test(start_paused = true)]
async fn a_kill_hurries_a_connection_whose_lifetime_is_over_and_does_not_count_it() {
    let running = running(SHORT_LIFE, "echo").await;
    let mut serving = JoinSet::new();
    let _client = delivering(&running, &mut serving).await;
    let killed = Instant::now();
    assert_eq!(running.kill(&ConnectionFilter::all()), 0);
    let outcome = soon("its end", serving.join_next()).await.expect("one");
    assert_eq!(outcome.expect("no panic"), Ok(Outcome::Lifetime));
    assert!(killed.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_drain_waits_for_no_connection_whose_lifetime_is_over() {
    let running = running(SHORT_LIFE, "echo").await;
    let mut serving = JoinSet::new();
    let _client = delivering(&running, &mut serving).await;
    let began = Instant::now();
    assert_eq!(soon("a drain", running.drain(Duration::ZERO)).await.cut, 1);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn it_is_served_by_the_configuration_of_the_moment_in_which_it_begins() {
    let mut running = running("", "echo").await;
    let served = running.serve("https", duplex(64).0, None);
    let without = config("", "echo").replace("\"https\"", "\"other\"");
    let without = without.parse().expect("a configuration");
    running.reload(without).await.expect("put in place");
    let unknown = ServeError::UnknownListener("https".into());
    assert_eq!(served.await, Err(unknown));
}

/// A stream that runs something else whenever it is read, as adapters do that drive what they wrap.
struct Driving<F> {
    stream: DuplexStream,
    driven: Pin<Box<F>>,
    has_ended: bool,
}

impl<F: Future> AsyncRead for Driving<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_ended = self.has_ended || self.driven.as_mut().poll(cx).is_ready();
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<F> AsyncWrite for Driving<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stream_may_run_another_connection_while_it_is_read() {
    let running = running("", "echo").await;
    let (mut inner, inners) = duplex(64);
    let (mut outer, outers) = duplex(64);
    let stream = Driving {
        stream: outers,
        driven: Box::pin(running.serve("plain", inners, None)),
        has_ended: false,
    };
    let mut serving = JoinSet::new();
    serving.spawn(running.serve("plain", stream, None));
    is_echoed(&mut outer).await;
    is_echoed(&mut inner).await;
}
