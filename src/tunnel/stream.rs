//! One stream of a tunnel, as the relay reads and writes it.

mod bytes;

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::StatusCode;
use hyper::body::{Buf, Bytes};
use tokio::sync::oneshot;

use super::backlog::Backlog;
use super::carried::answer;
use super::flows::{Flow, Flows};
use super::payload::{Payload, Queued};
use crate::deadline::Deadline;
use crate::wire::{Keep, Lend, Peer, Transmission};

/// A stream with its two directions. Dropping it before both have ended resets it.
pub(crate) struct TunnelStream {
    role: Role,
    sending: Sending,
    received: RecvStream,
    flow: Flow,
    backlog: Backlog,
    end: Option<Ending>,
    queued: Queued,
    /// The bytes that were written.
    written: u64,
    /// Dropped with the stream, which its other end notices.
    held: Option<oneshot::Sender<Infallible>>,
}

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The peer has opened it, for a connection of its own.
    Accepted,
    /// We have opened it, for a connection of ours.
    Opened,
    /// We have opened it, for a connection that the peer offers and that we have not taken yet.
    Offered,
}

/// Our direction.
enum Sending {
    /// The request was not answered yet.
    Due(SendResponse<Payload>),
    Open(SendStream<Payload>),
}

/// How the peer's direction has ended.
#[derive(Clone, Copy)]
enum Ending {
    InOrder,
    Failed(io::ErrorKind),
}

impl TunnelStream {
    /// A stream that the peer has opened.
    pub(super) fn accepted(
        respond: SendResponse<Payload>,
        received: RecvStream,
        flows: &Arc<Flows>,
    ) -> Self {
        Self::new(Role::Accepted, Sending::Due(respond), received, flows)
    }

    /// A stream that we have opened.
    pub(super) fn opened(
        sending: SendStream<Payload>,
        received: RecvStream,
        flows: &Arc<Flows>,
    ) -> Self {
        Self::new(Role::Opened, Sending::Open(sending), received, flows)
    }

    /// A stream that we have opened, and on which the peer offers a connection.
    pub(super) fn offered(
        sending: SendStream<Payload>,
        received: RecvStream,
        flows: &Arc<Flows>,
    ) -> Self {
        Self::new(Role::Offered, Sending::Open(sending), received, flows)
    }

    fn new(role: Role, sending: Sending, mut received: RecvStream, flows: &Arc<Flows>) -> Self {
        Self {
            role,
            sending,
            flow: Flow::new(flows, &mut received),
            received,
            backlog: Backlog::default(),
            end: None,
            queued: Queued::default(),
            written: 0,
            held: None,
        }
    }

    /// A stream of a worker that has taken a connection. `unread` came with the byte that said so. The other end of
    /// `held` learns when this is dropped.
    pub(super) fn taken(
        sending: SendStream<Payload>,
        received: RecvStream,
        flows: &Arc<Flows>,
        unread: Bytes,
        held: oneshot::Sender<Infallible>,
    ) -> Self {
        let mut stream = Self::new(Role::Accepted, Sending::Open(sending), received, flows);
        stream.backlog.push(unread);
        stream.held = Some(held);
        stream
    }

    /// Tells the peer that its connection is served: with a status if it has opened the stream, with one zero byte if it
    /// has offered the connection. Without an effect if it was told before.
    pub(crate) fn welcome(&mut self) {
        // If this fails, the peer has reset the stream, which its next read says.
        match &mut self.sending {
            Sending::Due(respond) => {
                if let Ok(open) = respond.send_response(answer(StatusCode::OK), false) {
                    self.sending = Sending::Open(open);
                }
            }
            Sending::Open(sending) if self.role == Role::Offered => {
                let _ = sending.send_data(TAKEN.to_vec().into(), false);
                self.role = Role::Opened;
            }
            Sending::Open(_) => {}
        }
    }

    /// Whether the peer was not told anything yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self.sending, Sending::Due(_)) || self.role == Role::Offered
    }

    /// Whether the peer offers a connection that we have not taken yet. A reset would give it back.
    pub(crate) fn is_offered(&self) -> bool {
        self.role == Role::Offered
    }

    /// Takes the connection that the peer offers, and ends it.
    pub(crate) async fn take_and_reset(mut self) {
        self.welcome();
        // A reset would overtake the byte. If the peer says anything, it has the byte.
        let answer = poll_fn(|cx| self.poll_frame(cx));
        let _ = Deadline::after(MOMENT).bound(answer).await;
        self.reset();
    }

    /// Tells the peer why nobody serves its stream. A stream that was welcomed is reset.
    pub(crate) fn refuse(self, status: StatusCode) {
        match self.sending {
            // If this fails, the peer has reset the stream meanwhile.
            Sending::Due(mut respond) => drop(respond.send_response(answer(status), true)),
            Sending::Open(_) => self.reset(),
        }
    }

    /// Ends the stream so that the peer does not take it for a clean end: the connection behind it has failed
    /// (RFC 9113 §8.5).
    pub(crate) fn reset(mut self) {
        let reason = match self.role {
            Role::Accepted => Reason::CONNECT_ERROR,
            Role::Opened | Role::Offered => Reason::CANCEL,
        };
        match &mut self.sending {
            Sending::Due(respond) => respond.send_reset(reason),
            Sending::Open(sending) => sending.send_reset(reason),
        }
    }

    /// Takes frames up to so many bytes. Ready without any byte: the stream has ended in order.
    fn poll_fill(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<io::Result<()>> {
        while self.end.is_none() && self.backlog.length() < enough {
            match self.poll_frame(cx) {
                Poll::Ready(Some(frame)) => self.backlog.push(frame),
                Poll::Ready(None) => {}
                Poll::Pending if self.backlog.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(match self.end {
            Some(Ending::Failed(kind)) if self.backlog.is_empty() => Err(kind.into()),
            _ => Ok(()),
        })
    }

    /// The next frame; `None` after the last one, and then `end` says how it ended.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let (frame, end) = match ready!(self.received.poll_data(cx)) {
            Some(Ok(frame)) => (Some(frame), None),
            None => (None, Some(ready!(self.poll_end(cx)))),
            Some(Err(error)) => (None, Some(Ending::Failed(kind(&error)))),
        };
        self.end = self.end.or(end);
        Poll::Ready(frame)
    }

    /// After the last frame of data. Trailers are an error: they have no meaning for a connection (RFC 9113 §8.5).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let trailers = ready!(self.received.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(None) => Ending::InOrder,
            Ok(Some(_)) => Ending::Failed(io::ErrorKind::ConnectionReset),
            Err(error) => Ending::Failed(kind(&error)),
        })
    }

    /// What was taken of the tunnel and not read.
    pub(crate) fn held(&self) -> usize {
        self.backlog.length()
    }

    /// After so many bytes were read: lets the peer send as many more.
    fn release(&mut self, count: usize) {
        // Fails only if more is released than was received.
        let _ = self.received.flow_control().release_capacity(count);
        self.flow.advance(self.held() > 0);
    }

    /// Ready when the peer gives room, and little enough waits for it.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sending = self.sending()?;
        if sending.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        // Not more: what an idle stream has reserved of the tunnel's window is missing to the others.
        sending.reserve_capacity(1);
        while sending.capacity() == 0 {
            match ready!(sending.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(kind(&error).into())),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, payload: Payload) -> io::Result<()> {
        self.written += payload.remaining() as u64;
        let sent = self.sending()?.send_data(payload, false);
        sent.map_err(|error| kind(&error).into())
    }

    fn sending(&mut self) -> io::Result<&mut SendStream<Payload>> {
        match &mut self.sending {
            Sending::Open(sending) => Ok(sending),
            Sending::Due(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// How long the byte that takes a connection may be on its way.
const MOMENT: Duration = Duration::from_secs(1);

/// What a worker sends first when it takes a connection. It is not part of the connection.
const TAKEN: &[u8] = &[0];

/// A connection behind the tunnel that fails, a peer that gives up, and a tunnel that breaks off: to the other side
/// all of them are a reset.
fn kind(error: &h2::Error) -> io::ErrorKind {
    match error.get_io() {
        Some(_) if !error.is_remote() => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::ConnectionReset,
    }
}

impl Peer for TunnelStream {
    fn has_failed(&self) -> bool {
        matches!(self.end, Some(Ending::Failed(_)))
    }

    /// Also if it has failed, which its next write says.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_capacity(cx).map(drop)
    }

    /// Takes what has arrived: the memory of many small frames is many times their bytes. The peer may send more only
    /// when these have been read.
    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        // At a failure, what came before it is still to be read.
        let _ = self.poll_fill(cx, usize::MAX);
        if self.held() > 0 {
            self.flow.wait();
        }
    }

    fn lender(&mut self) -> Option<&mut dyn Lend> {
        Some(self)
    }

    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        Some(self)
    }

    /// A reset destroys what waits for room, and so does the end of the tunnel, which waits for its connections. The
    /// peer owes nothing: a tunnel looks itself whether its peer is there.
    fn transmission(&mut self) -> Option<Transmission> {
        let queued = self.queued.count() as u64;
        Some(Transmission {
            is_unacknowledged: queued > 0,
            acknowledged: self.written.saturating_sub(queued),
            is_due: false,
            silent_for: Duration::ZERO,
        })
    }

    /// A client that has sent everything resets the stream if it does not want the answer any more. A server that does
    /// so has answered, and reads nothing more (RFC 9113 §8.1), which the next write says. Never ready without an error:
    /// what is written after the end of the peer's direction has to leave as well.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sending {
            Sending::Open(sending) if self.role == Role::Accepted => {
                Poll::Ready(Err(match ready!(sending.poll_reset(cx)) {
                    Ok(_) => io::ErrorKind::ConnectionReset.into(),
                    Err(error) => kind(&error).into(),
                }))
            }
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream")
            .field("is_held", &self.held.is_some())
            .field("is_unanswered", &self.is_unanswered())
            .finish_non_exhaustive()
    }
}
