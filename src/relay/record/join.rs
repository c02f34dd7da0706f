//! The two directions of a record relay.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::super::drive::{
    Cause, Direction, Directions, Fault, OnEnd, Progress, Side, State, pump,
};
use super::{ReadVectored, RecordStream, Wire};
use crate::relay::stream::poll_discard;
use crate::traffic::{Counter, Traffic};
use crate::wire::Transmission;

/// A client and its backend while they are joined.
pub(super) struct Joined<'a, IO, B> {
    pub client: &'a mut RecordStream<IO>,
    pub backend: &'a mut B,
    pub traffic: &'a Traffic,
}

impl<IO, B> Directions for Joined<'_, IO, B>
where
    IO: Wire,
    B: ReadVectored,
{
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut up = Up {
            client: self.client,
            backend: self.backend,
            counter: &self.traffic.from_client,
        };
        pump(&mut up, cx, on_end)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut down = Down {
            client: self.client,
            backend: self.backend,
            counter: &self.traffic.to_client,
        };
        pump(&mut down, cx, on_end)
    }

    fn states(&mut self) -> (&mut State, &mut State) {
        (&mut self.client.up, &mut self.client.down)
    }

    fn progress(&self) -> Progress {
        Progress {
            up_is_blocked: !self.client.opened.is_empty(),
            moved: self.traffic.from_client.get() + self.traffic.to_client.get(),
        }
    }

    fn client_has_failed(&self) -> bool {
        self.client.io.has_failed()
    }

    fn transmission(&mut self, side: Side) -> Option<Transmission> {
        match side {
            Side::Client => self.client.io.transmission(),
            Side::Backend => self.backend.transmission(),
        }
    }
}

/// Records opened, and what they hold written to the backend.
struct Up<'a, IO, B> {
    client: &'a mut RecordStream<IO>,
    backend: &'a mut B,
    counter: &'a Counter,
}

impl<IO, B> Direction for Up<'_, IO, B>
where
    IO: Wire,
    B: ReadVectored,
{
    /// As of the stream relay, of twice the bytes each.
    const SHARE: usize = 8;

    fn state(&mut self) -> &mut State {
        &mut self.client.up
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let taken = |taken| self.counter.add(taken);
        let sent = self.client.opened.poll_write(cx, self.backend, taken);
        sent.map_err(Fault::write)
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        let received = self.client.poll_receive(cx, self.backend, self.counter);
        match (ready!(received), on_end) {
            (Err(Fault::Read(Cause::Truncated)), OnEnd::Fail) => {
                Poll::Ready(Err(Fault::Read(Cause::Reset)))
            }
            (received, _) => Poll::Ready(received),
        }
    }

    /// With TLS, a backend's stream keeps what its socket did not take.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.backend).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.backend).poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_discard(&mut self.client.io, cx)
    }

    fn forget(&mut self) {
        self.client.opened.clear();
    }
}

/// What the backend says, sealed into records.
struct Down<'a, IO, B> {
    client: &'a mut RecordStream<IO>,
    backend: &'a mut B,
    counter: &'a Counter,
}

impl<IO, B> Direction for Down<'_, IO, B>
where
    IO: Wire,
    B: ReadVectored,
{
    const SHARE: usize = 8;

    fn state(&mut self) -> &mut State {
        &mut self.client.down
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.client.poll_send_rest(cx, self.counter)
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        self.client
            .keep_keys_fresh()
            .map_err(|_| Fault::Read(Cause::KeysSpent))?;
        if !self.client.sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.client
            .poll_send(cx, self.backend, self.counter, on_end)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket keeps nothing, and what it did not take is the rest.
        Poll::Ready(Ok(()))
    }

    fn say_end(&mut self) {
        self.client.close_notify();
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.io).poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.backend.poll_discard(cx)
    }

    fn forget(&mut self) {}
}
