//! A worker's stream, before the worker has a connection: the request of a line of the gate, and its answer.
//!
//! ```text
//! WorkerRequest ─┬─ grant ─► Granted: 200, facts ─ confirmed: a zero byte ─► TunnelStream: the connection
//!                ├─ watch ─► WatchStream: 200, lines
//!                └─ refuse ─► 4xx, 503
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::body::{Buf, Bytes};
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use tokio::sync::oneshot;

use super::TunnelStream;
use super::carried::answer;
use super::flows::Flows;
use super::payload::Payload;

/// A stream on which a worker asks for connections, and that was not answered yet. Dropping it resets the stream.
#[derive(Debug)]
pub(crate) struct WorkerRequest {
    /// What its `:authority` names.
    pub backend: Box<str>,
    /// What the worker wants; `None` if the request is malformed.
    pub line: Option<HeaderValue>,
    respond: SendResponse<Payload>,
    received: RecvStream,
    flows: Arc<Flows>,
}

/// A worker's stream on which it was told that it has a connection. Dropping it resets the stream.
#[derive(Debug)]
pub(crate) struct Granted {
    sending: SendStream<Payload>,
    received: RecvStream,
    flows: Arc<Flows>,
}

/// A worker's stream for lines about the connections that wait.
#[derive(Debug)]
pub(crate) struct WatchStream {
    sending: SendStream<Payload>,
    received: RecvStream,
}

/// The worker has left, or has broken the protocol: its stream was reset.
#[derive(Debug)]
pub(crate) struct Gone;

impl WorkerRequest {
    pub(super) fn is_one(request: &Request<RecvStream>) -> bool {
        request.method() == Method::CONNECT && request.headers().contains_key(LINE)
    }

    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Payload>,
        flows: &Arc<Flows>,
    ) -> Self {
        let (parts, received) = request.into_parts();
        let mut lines = parts.headers.get_all(LINE).into_iter().cloned();
        let (line, another) = (lines.next(), lines.next());
        let authority = parts.uri.authority();
        let is_sound = authority.is_some() && another.is_none();
        Self {
            backend: authority.map_or("", |it| it.as_str()).into(),
            line: line.filter(|_| is_sound),
            respond,
            received,
            flows: Arc::clone(flows),
        }
    }

    /// Whether the worker has ended its direction: it can take no connection.
    pub(crate) fn has_ended(&self) -> bool {
        self.received.is_end_stream()
    }

    pub(crate) fn refuse(mut self, status: StatusCode, reason: &'static str) {
        let mut response = answer(status);
        let reason = HeaderValue::from_static(reason);
        response.headers_mut().insert(REFUSAL, reason);
        // If this fails, the worker has reset the stream meanwhile.
        let _ = self.respond.send_response(response, true);
    }

    /// Waits until the worker leaves. Anything else that it sends before its answer breaks the protocol: it could
    /// take a connection before it knows that it has one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn gone(&mut self) -> Gone {
        while let Some(Ok(frame)) = poll_fn(|cx| self.received.poll_data(cx)).await {
            if !frame.is_empty() {
                break;
            }
        }
        // Without an effect if the worker has reset the stream.
        self.respond.send_reset(Reason::PROTOCOL_ERROR);
        Gone
    }

    /// Ends the stream without an answer.
    pub(crate) fn reset(mut self) {
        self.respond.send_reset(Reason::CANCEL);
    }

    /// Tells the worker that it has the connection with these facts, a line of JSON in ASCII.
    ///
    /// # Errors
    ///
    /// The worker has left.
    pub(crate) fn grant(mut self, facts: &str) -> Result<Granted, Gone> {
        let mut response = answer(StatusCode::OK);
        let facts = HeaderValue::from_str(facts).map_err(|_| Gone)?;
        response.headers_mut().insert(FACTS, facts);
        let sending = self.respond.send_response(response, false);
        Ok(Granted {
            sending: sending.map_err(|_| Gone)?,
            received: self.received,
            flows: self.flows,
        })
    }

    /// # Errors
    ///
    /// The worker has left.
    pub(crate) fn watch(mut self) -> Result<WatchStream, Gone> {
        let sending = self.respond.send_response(answer(StatusCode::OK), false);
        Ok(WatchStream {
            sending: sending.map_err(|_| Gone)?,
            received: self.received,
        })
    }
}

impl Granted {
    /// Waits until the worker confirms that it has the connection, and returns what came with that.
    ///
    /// # Errors
    ///
    /// The worker has left, or has sent something else.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn confirmed(&mut self) -> Result<Bytes, Gone> {
        while let Some(Ok(mut frame)) = poll_fn(|cx| self.received.poll_data(cx)).await {
            if frame.is_empty() {
                continue;
            }
            // Fails only if more is released than was received.
            let _ = self.received.flow_control().release_capacity(1);
            if frame.get_u8() != TAKEN {
                break;
            }
            return Ok(frame);
        }
        // Without an effect if the worker has reset the stream.
        self.sending.send_reset(Reason::PROTOCOL_ERROR);
        Err(Gone)
    }

    /// The stream of the connection. The other end of `held` learns when it is dropped.
    pub(crate) fn into_stream(
        self,
        unread: Bytes,
        held: oneshot::Sender<Infallible>,
    ) -> TunnelStream {
        TunnelStream::taken(self.sending, self.received, &self.flows, unread, held)
    }

    /// Takes the connection from the worker again.
    pub(crate) fn reset(mut self) {
        self.sending.send_reset(Reason::CANCEL);
    }
}

impl WatchStream {
    /// Sends a line, however slowly the worker takes it.
    ///
    /// # Errors
    ///
    /// The worker has left.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the line may be sent.
    pub(crate) async fn send(&mut self, line: String) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut line = Bytes::from(line);
        while !line.is_empty() {
            self.sending.reserve_capacity(line.len());
            while self.sending.capacity() == 0 {
                let more = poll_fn(|cx| self.sending.poll_capacity(cx)).await;
                more.and_then(Result::ok).ok_or_else(gone)?;
            }
            let part = line.split_to(self.sending.capacity().min(line.len()));
            self.sending
                .send_data(part.to_vec().into(), false)
                .map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Waits until the worker leaves. What it sends has no meaning, and its end none either.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn gone(&mut self) -> Gone {
        while let Some(Ok(frame)) = poll_fn(|cx| self.received.poll_data(cx)).await {
            // As above.
            let _ = self.received.flow_control().release_capacity(frame.len());
        }
        let _ = poll_fn(|cx| self.sending.poll_reset(cx)).await;
        Gone
    }

    /// Ends the stream: nothing more will happen.
    pub(crate) fn finish(mut self) {
        // If this fails, the worker has left.
        let _ = self.sending.send_data(Payload::none(), true);
    }

    /// Ends the stream: lines are missing.
    pub(crate) fn reset(mut self) {
        self.sending.send_reset(Reason::CANCEL);
    }
}

/// A line of the gate, without the name of the backend, in lower case.
const LINE: &str = "vestibule";
/// The facts of a connection, as the gate has them in its `OK` line.
const FACTS: &str = "vestibule-facts";
/// The reason after the gate's `NO`.
const REFUSAL: &str = "vestibule-refusal";
/// What a worker sends first when it has a connection. It is not part of the connection.
const TAKEN: u8 = 0;
