//! Serves connections that a program has accepted itself.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::Running;
use crate::client::Transport;
use crate::connection::{self, Arrival, accept};
use crate::facts::Endpoint;
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

impl Running {
    /// Serves a connection that the program has accepted itself, as if the listener of this name had
    /// accepted it: with its TLS, limits, routes, and an entry in [`Running::connections`]. `peer` is
    /// the address of the client, if it is known: limits per address and routes by address use it.
    ///
    /// The future has to be polled; it completes when the connection has ended. If it is dropped, the connection
    /// ends at once, and a backend over TCP reads a reset. A drain waits for the future, but at most a few seconds
    /// after its time is up, because the future may not be polled any more.
    ///
    /// `io` may be any stream. A stream tells less than a socket: a reset by the client looks like a
    /// clean end, and bytes count as delivered when they were written. If the listener requires a PROXY
    /// protocol header, this stream needs one too, from a `peer` in `trusted_proxies`.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let config: vestibule::Config = r#"
    ///     [[listener]]
    ///     name = "plain"
    ///     address = "tcp:127.0.0.1:0"
    ///     [[backend]]
    ///     name = "echo"
    ///     to = "echo"
    /// "#
    /// .parse()?;
    /// let running = vestibule::Proxy::builder(config).bind().await?.start();
    ///
    /// let (mut client, ours) = tokio::io::duplex(1024);
    /// let served = running.serve("plain", ours, None);
    /// let talk = async move {
    ///     client.write_all(b"hello").await?;
    ///     client.shutdown().await?;
    ///     let mut answer = String::new();
    ///     client.read_to_string(&mut answer).await?;
    ///     std::io::Result::Ok(answer)
    /// };
    /// let (outcome, answer) = tokio::join!(served, talk);
    /// assert_eq!((outcome?, &*answer?), (vestibule::Outcome::Done, "hello"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The connection was not served, and its stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future closes the connection at once, as [`Outcome::Aborted`].
    pub fn serve<IO, P>(
        &self,
        listener: &str,
        io: IO,
        peer: P,
    ) -> impl Future<Output = Result<Outcome, ServeError>> + Send + use<IO, P>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
        P: Into<Option<Endpoint>>,
    {
        self.entrance().serve(listener, io, peer)
    }

    pub(crate) fn entrance(&self) -> Entrance {
        Entrance {
            state: Arc::clone(&self.state),
            served: self.served.clone(),
        }
    }
}

/// The way in for connections that no listener has accepted.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    pub state: Arc<ProxyState>,
    /// A drain waits for these while they are polled.
    served: TaskTracker,
}

impl Entrance {
    /// See [`Running::serve`].
    pub(crate) fn serve<IO, P>(
        &self,
        listener: &str,
        io: IO,
        peer: P,
    ) -> impl Future<Output = Result<Outcome, ServeError>> + Send + use<IO, P>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
        P: Into<Option<Endpoint>>,
    {
        let Self { state, served } = self.clone();
        let name = listener.to_owned();
        let (transport, peer) = (Transport::stream(io), peer.into());
        async move {
            // Only after the first poll: otherwise a drain would wait for a future that nobody polls,
            // and the configuration could be older than a reload.
            let _token = served.token();
            if state.drain.is_started() {
                return Err(ServeError::Draining);
            }
            let config = state.config.load_full();
            let Some(listener) = config.listeners.get(&*name).map(Arc::clone) else {
                return Err(ServeError::UnknownListener(name));
            };
            let arrival = Arrival {
                config,
                listener,
                transport,
                peer,
                local: None,
                stream: None,
            };
            let accepted = match accept(arrival, &state) {
                Ok(accepted) => accepted,
                Err(outcome) => return Ok(outcome),
            };
            let span = accepted.record.span();
            Ok(connection::serve(accepted, state).instrument(span).await)
        }
    }
}

/// Why a connection was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration has no such listener.
    #[error("the configuration has no listener {0:?}")]
    UnknownListener(String),
    /// The proxy is draining and takes no new connections.
    #[error("the proxy is draining")]
    Draining,
}
