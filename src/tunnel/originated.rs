//! The client's side of a tunnel: the streams that we open.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use h2::client::{self, Connection, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::budget::WindowBudget;
use super::flows::Flows;
use super::gathered::{Failed, Gathered, Turn};
use super::heartbeat::{Heartbeat, Pings};
use super::payload::Payload;
use super::windows::Windows;
use super::{
    CarrierError, MOST_FIELDS, MOST_RESETS, MOST_UNSENT, SMALL_FRAMES, STREAM_WINDOW, TunnelStream,
    carrier_window,
};
use crate::wire::{Delivery, Patience, Peer};

/// A tunnel that we have opened. A clone is another handle to it.
#[derive(Clone)]
pub(crate) struct Originated {
    requests: SendRequest<Payload>,
    flows: Arc<Flows>,
}

/// Moves the bytes of a tunnel that we have opened. Its streams move only while this is polled; it ends with the
/// tunnel.
///
/// If the last [`Originated`] and the last stream are gone, it ends the tunnel. Then [`Self::close`] closes the
/// connection.
pub(crate) struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Gathered<IO>, Payload>,
    turn: Turn<IO>,
    pings: Pings,
    heartbeat: Heartbeat,
    windows: Windows,
    is_open: bool,
    /// What had arrived when it was last seen to be open.
    seen: u64,
}

/// What a driver has noticed.
pub(crate) enum Notice {
    /// The tunnel takes no more streams. Those that are open continue.
    Closed,
    Ended(Result<(), CarrierError>),
}

/// A stream that the peer has accepted.
pub(crate) struct Answer {
    pub headers: HeaderMap,
    sending: SendStream<Payload>,
    received: RecvStream,
    flows: Arc<Flows>,
}

/// Why the peer gives us no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It has answered with another status than 2xx.
    #[error("the peer answers {0}")]
    Refused(StatusCode, Box<HeaderMap>),
    /// The peer has certainly not looked at the request (RFC 9113 §8.7): another tunnel may serve it.
    #[error("the peer takes no more streams in this tunnel")]
    Unprocessed,
    /// The tunnel or the stream has failed.
    #[error(transparent)]
    Failed(#[from] CarrierError),
}

impl Originated {
    /// Begins HTTP/2 over a connection after its handshake, for up to `streams` streams at a time. Waits until the peer
    /// has said how many it takes: it would have to refuse some of those that came before.
    ///
    /// # Errors
    ///
    /// The peer has left, or speaks another protocol.
    pub(crate) async fn begin<IO>(io: IO, streams: u32) -> Result<(Self, Driver<IO>), CarrierError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (io, turn) = Gathered::new(io);
        let (requests, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(carrier_window(streams))
            .max_header_list_size(MOST_FIELDS)
            .max_send_buffer_size(MOST_UNSENT)
            .data_frame_budget(SMALL_FRAMES)
            // What is on its way to a stream that we have reset is no error of the peer. h2 remembers some of these
            // streams for a time, and would end the tunnel, with all others in it, after so many frames for the rest.
            .max_concurrent_reset_streams(MOST_RESETS)
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await?;
        turn.begin();
        let flows = Arc::default();
        let mut driver = Driver {
            pings: Pings::new(connection.ping_pong()),
            connection,
            turn,
            heartbeat: Heartbeat::new(),
            windows: Windows::new(streams, &flows),
            is_open: true,
            seen: 0,
        };
        poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(CarrierError::Io(io::ErrorKind::UnexpectedEof))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if requests.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok((Self { requests, flows }, driver))
    }

    /// How many streams the peer takes at a time.
    pub(crate) fn allowed(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the tunnel takes new streams: it has not ended, and the peer has sent no GOAWAY.
    pub(crate) fn is_open(&self) -> bool {
        // A new handle has no request of its own that it would wait for.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(
            self.requests.clone().poll_ready(&mut cx),
            Poll::Ready(Ok(()))
        )
    }

    /// Asks for a stream, and waits for the answer, without a limit of time. Waits first while the peer has as many
    /// streams as it allows.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub(crate) async fn open(
        &self,
        authority: &str,
        headers: HeaderMap,
    ) -> Result<Answer, OpenError> {
        let uri = Uri::builder().authority(authority).build();
        let uri = uri.map_err(|_| CarrierError::Protocol(Reason::INTERNAL_ERROR))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let mut requests = self.requests.clone();
        // Nothing was sent yet.
        poll_fn(|cx| requests.poll_ready(cx))
            .await
            .map_err(|_| OpenError::Unprocessed)?;
        let sent = requests.send_request(request, false);
        let (response, sending) = sent.map_err(|_| OpenError::Unprocessed)?;
        let (parts, received) = response.await.map_err(unanswered)?.into_parts();
        match parts.status.is_success() {
            true => Ok(Answer {
                headers: parts.headers,
                sending,
                received,
                flows: Arc::clone(&self.flows),
            }),
            false => Err(OpenError::Refused(parts.status, parts.headers.into())),
        }
    }
}

impl Answer {
    /// The stream, whose bytes both sides may send now.
    pub(crate) fn into_stream(self) -> TunnelStream {
        TunnelStream::opened(self.sending, self.received, &self.flows)
    }

    /// The stream of a connection that the peer offers us. It is ours when we have said so: see
    /// [`TunnelStream::welcome`].
    pub(crate) fn into_offer(self) -> TunnelStream {
        TunnelStream::offered(self.sending, self.received, &self.flows)
    }
}

/// The error of a stream shows a GOAWAY of the peer only if the stream is above its last stream identifier, and so was
/// not looked at (RFC 9113 §6.8). The streams below it continue. When the tunnel ends later, their errors are those of
/// its connection.
fn unanswered(error: h2::Error) -> OpenError {
    match error.reason() {
        Some(_) if error.is_go_away() && error.is_remote() => OpenError::Unprocessed,
        Some(Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => {
            OpenError::Unprocessed
        }
        _ => OpenError::Failed(error.into()),
    }
}

impl<IO: Peer> Driver<IO> {
    /// Moves the tunnel until it has ended, and then closes its connection: see [`Self::close`].
    ///
    /// # Errors
    ///
    /// The tunnel has failed.
    pub(crate) async fn run(mut self, patience: &Patience) -> Result<(), CarrierError> {
        (&mut self).await?;
        self.close(patience).await;
        Ok(())
    }

    /// As [`Self::run`], and calls `closed` when `requests` take no more streams.
    ///
    /// # Errors
    ///
    /// The tunnel has failed.
    pub(crate) async fn run_noticing(
        mut self,
        patience: &Patience,
        requests: Weak<Originated>,
        closed: impl Fn(),
    ) -> Result<(), CarrierError> {
        loop {
            let is_open = || requests.upgrade().is_none_or(|it| it.is_open());
            match poll_fn(|cx| self.poll_notice(cx, is_open)).await {
                Notice::Closed => closed(),
                Notice::Ended(ended) => break ended?,
            }
        }
        self.close(patience).await;
        Ok(())
    }

    /// Closes the connection, after the tunnel has ended in order. Waits until the peer has the last bytes: see
    /// [`Delivery`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once.
    pub(crate) async fn close(self, patience: &Patience) {
        let mut delivery = Delivery::default();
        poll_fn(|cx| self.turn.poll_delivered(cx, &mut delivery, patience)).await;
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Moves the tunnel, and notices when it takes no more streams, which is said once: a GOAWAY of the peer wakes
    /// nobody else. It looks when something has arrived. `is_open` asks an [`Originated`], if there is one: with a handle of its own, a driver would never end.
    pub(crate) fn poll_notice(
        &mut self,
        cx: &mut Context<'_>,
        is_open: impl FnOnce() -> bool,
    ) -> Poll<Notice> {
        if let Poll::Ready(ended) = Pin::new(&mut *self).poll(cx) {
            return Poll::Ready(Notice::Ended(ended));
        }
        let (reads, _) = self.turn.arrived();
        let has_heard = std::mem::replace(&mut self.seen, reads) != reads;
        if self.is_open && has_heard && !is_open() {
            self.is_open = false;
            return Poll::Ready(Notice::Closed);
        }
        Poll::Pending
    }

    /// Lets the windows of the streams grow.
    pub(crate) fn grow_within(&mut self, budget: &Arc<WindowBudget>) {
        self.windows.grow_within(budget);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Result<(), CarrierError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (reads, received) = this.turn.arrived();
        let (pings, tunnel) = (&mut this.pings, &mut this.connection);
        let is_answered = pings.poll_answered(cx);
        let missed = (this.heartbeat).poll_missed(cx, reads, is_answered, pings);
        if missed.is_ready() {
            return Poll::Ready(Err(CarrierError::Io(io::ErrorKind::TimedOut)));
        }
        (this.windows).poll(cx, received, is_answered, pings, tunnel);
        loop {
            match Pin::new(&mut this.connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {}
            }
            match this.turn.poll_end(cx) {
                Poll::Ready(Err(Failed)) => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
