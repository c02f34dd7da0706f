//! The server's side of a tunnel: the streams that a peer opens.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::budget::WindowBudget;
use super::flows::Flows;
use super::gathered::{Failed, Gathered, Turn};
use super::heartbeat::{Heartbeat, Pings};
use super::payload::Payload;
use super::windows::Windows;
use super::{
    MOST_ERRORS, MOST_FIELDS, MOST_RESET_EARLY, MOST_RESETS, MOST_UNSENT, SMALL_FRAMES,
    STREAM_WINDOW, TunnelSettings, TunnelStream, WorkerRequest, carrier_window,
};
use crate::authority::Authority;

/// A tunnel that a peer has brought. Its streams move only while [`Self::next`] is polled.
pub(crate) struct Carried<IO> {
    connection: Connection<Gathered<IO>, Payload>,
    turn: Turn<IO>,
    pings: Pings,
    heartbeat: Option<Heartbeat>,
    flows: Arc<Flows>,
    windows: Windows,
}

/// A stream that the peer has opened, and that was not answered yet.
pub(crate) enum Opened {
    /// For a connection of its own.
    Client(Opening),
    /// To take a connection of ours.
    Worker(WorkerRequest),
}

/// A connection of the peer, before it is answered.
pub(crate) struct Opening {
    pub authority: Authority,
    pub stream: TunnelStream,
}

/// Why a tunnel ended before its peer was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarrierError {
    /// Its connection failed, or ended without notice.
    #[error("its connection has failed: {0}")]
    Io(io::ErrorKind),
    /// One of the two sides broke the protocol, or said that the other one did.
    #[error("HTTP/2 error: {0}")]
    Protocol(Reason),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Carried<IO> {
    /// Waits for the peer's preface (RFC 9113 §3.4).
    ///
    /// # Errors
    ///
    /// The peer speaks another protocol, or has left.
    pub(crate) async fn begin(io: IO, settings: &TunnelSettings) -> Result<Self, CarrierError> {
        let (io, turn) = Gathered::new(io);
        let mut connection = server::Builder::new()
            .max_concurrent_streams(settings.streams)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(carrier_window(settings.streams))
            .max_header_list_size(MOST_FIELDS)
            .max_send_buffer_size(MOST_UNSENT)
            .max_pending_accept_reset_streams(MOST_RESET_EARLY)
            .data_frame_budget(SMALL_FRAMES)
            .max_concurrent_reset_streams(MOST_RESETS)
            .max_local_error_reset_streams(Some(MOST_ERRORS))
            .handshake(io)
            .await?;
        turn.begin();
        let flows = Arc::default();
        Ok(Self {
            // It can be taken once.
            pings: Pings::new(connection.ping_pong()),
            connection,
            turn,
            heartbeat: None,
            windows: Windows::new(settings.streams, &flows),
            flows,
        })
    }

    /// Lets the windows of the streams grow.
    pub(crate) fn grow_within(&mut self, budget: &Arc<WindowBudget>) {
        self.windows.grow_within(budget);
    }

    /// The next stream that the peer opens; `None` when the tunnel has ended in order. What is neither a request to
    /// CONNECT to a host and port, nor a worker's, is answered here.
    ///
    /// # Errors
    ///
    /// The tunnel has ended otherwise, and its streams have failed. After [`io::ErrorKind::TimedOut`] they fail when
    /// this is dropped.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Opened>, CarrierError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Opened>, CarrierError>> {
        let (reads, received) = self.turn.arrived();
        let (pings, tunnel) = (&mut self.pings, &mut self.connection);
        let is_answered = pings.poll_answered(cx);
        if let Some(heartbeat) = &mut self.heartbeat
            && (heartbeat.poll_missed(cx, reads, is_answered, pings)).is_ready()
        {
            self.heartbeat = None;
            let error = CarrierError::Io(io::ErrorKind::TimedOut);
            return Poll::Ready(Err(error));
        }
        (self.windows).poll(cx, received, is_answered, pings, tunnel);
        loop {
            let accepted = match self.connection.poll_accept(cx) {
                Poll::Ready(Some(accepted)) => accepted,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => match self.turn.poll_end(cx) {
                    Poll::Ready(Err(Failed)) => continue,
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                },
            };
            let (request, respond) = accepted?;
            if let Some(opened) = opened(request, respond, &self.flows) {
                return Poll::Ready(Ok(Some(opened)));
            }
        }
    }

    /// Fails from now on when the peer is silent.
    pub(crate) fn listen_for_a_pulse(&mut self) {
        self.heartbeat.get_or_insert_with(Heartbeat::new);
    }

    /// Lets the streams that are open end, and accepts no others (GOAWAY, RFC 9113 §6.8). [`Self::next`] has to be
    /// called until it returns `None`.
    pub(crate) fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

fn opened(
    request: Request<RecvStream>,
    mut respond: SendResponse<Payload>,
    flows: &Arc<Flows>,
) -> Option<Opened> {
    if WorkerRequest::is_one(&request) {
        return Some(Opened::Worker(WorkerRequest::new(request, respond, flows)));
    }
    let status = match request.method() {
        &Method::CONNECT => match request.uri().authority().map(|it| it.as_str().parse()) {
            Some(Ok(authority)) => {
                let stream = TunnelStream::accepted(respond, request.into_body(), flows);
                return Some(Opened::Client(Opening { authority, stream }));
            }
            _ => StatusCode::BAD_REQUEST,
        },
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    debug!(%status, "request of a tunnel refused");
    // If this fails, the peer has reset the stream meanwhile.
    let _ = respond.send_response(answer(status), true);
    None
}

pub(super) fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 §15.5.6.
        let connect = hyper::header::HeaderValue::from_static("CONNECT");
        response.headers_mut().insert(hyper::header::ALLOW, connect);
    }
    response
}

impl From<h2::Error> for CarrierError {
    fn from(error: h2::Error) -> Self {
        match error.get_io() {
            Some(error) => Self::Io(error.kind()),
            None => Self::Protocol(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
        }
    }
}
