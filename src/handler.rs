//! Serving connections in this process: the handle that accepts them, and the connections that it
//! returns.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::backend::claimer::{Claimer, HandedOver};
use crate::facts::Facts;
use crate::proxy_state::ProxyState;
use crate::rendezvous::Accepted;

/// Accepts the connections of one backend with `to = "gate"`, in this process.
///
/// One backend may have several handles, and workers at the gate beside them: waiting connections
/// go to them in turn. If the handle is dropped while it holds a connection that `accept` has not
/// returned, that connection is closed.
#[derive(Debug)]
pub struct Backend {
    name: String,
    state: Arc<ProxyState>,
    /// The place in the queue of claimers. It is kept when `accept` is cancelled.
    queued: Option<oneshot::Receiver<HandedOver>>,
}

impl Backend {
    pub(crate) fn new(name: &str, state: Arc<ProxyState>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            queued: None,
        }
    }

    /// The backend's configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next connection, without a time limit. Returns `None` once the proxy is
    /// draining: no more connections will come.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a connection that arrives meanwhile is returned by the next call.
    pub async fn accept(&mut self) -> Option<Connection> {
        loop {
            let queued = match &mut self.queued {
                Some(queued) => queued,
                None => self.queued.insert(enqueue(&self.name, &self.state)?),
            };
            let handed = queued.await;
            self.queued = None;
            match handed {
                Ok(HandedOver { facts, stream }) => {
                    // This fails only while the runtime shuts down.
                    let stream = UnixStream::from_std(stream).ok()?;
                    return Some(Connection { facts, stream });
                }
                // No connection came after all: no descriptor was free for the socket pair, or a
                // drain began.
                Err(_) => sleep(BACK_OFF).await,
            }
        }
    }
}

fn enqueue(name: &str, state: &ProxyState) -> Option<oneshot::Receiver<HandedOver>> {
    let (handler, queued) = oneshot::channel();
    match state.rendezvous.accept(name, Claimer::Handler(handler)) {
        Accepted::Matched(_) | Accepted::Queued | Accepted::Gone(_) => Some(queued),
        Accepted::Drained(_) => None,
    }
}

/// A connection's plaintext as one end of a Unix socket pair, and its facts.
///
/// A shutdown of the writing side sends `close_notify` to the client (RFC 8446 §6.1). The client's
/// `close_notify` ends the reading side of this stream; the other direction continues. If the
/// client resets or truncates its connection, this stream ends as well: a Unix socket pair cannot
/// pass on a reset.
#[derive(Debug)]
pub struct Connection {
    facts: Facts,
    stream: UnixStream,
}

impl Connection {
    /// What is known of the connection.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The plain socket. Its descriptor may be passed on to another process.
    pub fn into_unix_stream(self) -> UnixStream {
        self.stream
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const BACK_OFF: Duration = Duration::from_millis(50);
