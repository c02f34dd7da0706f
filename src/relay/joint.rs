//! The relay between any two sides, each with or without our record layer.
//!
//! ```text
//! client ── receive ─► scratch ── send ─► backend      one [`Lane`] each way;
//!        ◄─ send ── scratch ◄─ receive ──              an end is passed on as an end
//! ```
//!
//! The scratch belongs to the thread. A connection owns memory only for bytes that the other side
//! did not accept at once, and then reads nothing more until it has: that is the backpressure.

#[cfg(any(test, fuzzing))]
pub(super) mod state;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::drive::{
    Cause, Direction, Directions, Fault, OnEnd, Progress, Side, State, drive, pump,
};
use super::endpoint::{Endpoint, Rest, Then, with_scratch};
use super::pass::{poll_keep, poll_pass};
use super::write_buffer::WriteBuffer;
use super::{End, Relay};
use crate::record::Layout;
use crate::traffic::{Counter, Traffic};
use crate::wire::Transmission;

/// A client, and the progress of its relay with a backend.
#[derive(Debug)]
pub(crate) struct Joint<C> {
    client: C,
    up: Lane,
    down: Lane,
}

/// The data that one direction keeps.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) state: State,
    /// Read, not sealed, and not accepted by the writer yet.
    pub(super) unsent: WriteBuffer,
    /// Whether bytes that were written may still be in a buffer of the writer.
    pub(super) unflushed: bool,
}

/// What came from a client that has no backend yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It sent something, and may have closed its side after that.
    Words,
    /// It closed without sending anything, or failed.
    Nothing,
}

impl<C: Endpoint> Joint<C> {
    pub(crate) fn new(client: C) -> Self {
        Self {
            client,
            up: Lane::default(),
            down: Lane::default(),
        }
    }

    pub(crate) fn client(&mut self) -> &mut C {
        &mut self.client
    }

    pub(crate) fn peer(&self) -> &C {
        &self.client
    }

    pub(crate) fn into_client(self) -> C {
        self.client
    }

    /// Reads what the client sends until it has ended or sent `enough` bytes. At most one more
    /// record is kept beyond that, and a sealed one behind it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is lost, because what was read stays here.
    pub(crate) async fn hear(&mut self, enough: usize) -> Heard {
        poll_fn(|cx| {
            while self.up.state == State::Open && self.up.unsent.len() < enough {
                if let Err(Fault::Read(cause)) = ready!(self.poll_hear(cx, enough)) {
                    self.up.state.break_off(cause);
                }
            }
            Poll::Ready(match self.up.unsent.is_empty() {
                true => Heard::Nothing,
                false => Heard::Words,
            })
        })
        .await
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<Result<(), Fault>> {
        with_scratch(|scratch, pieces| {
            let room = self.client.room(enough - self.up.unsent.len());
            let room = room.min(scratch.len());
            let scratch = &mut scratch[..room];
            pieces.clear(Layout::PLAIN);
            let then = ready!((self.client).poll_receive(cx, scratch, pieces, OnEnd::PassOn))?;
            self.up.unsent.extend(&scratch[..pieces.length()]);
            match then {
                Then::More => {}
                Then::End => self.up.state = State::Ending,
                Then::Failed(fault) => return Poll::Ready(Err(fault)),
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Whether the client was told the end of its answer.
    pub(crate) fn has_told_the_end(&self) -> bool {
        self.down.state.is_closed()
    }

    /// Whether the client has ended its stream in order, and the backend was told.
    pub(crate) fn has_heard_the_end(&self) -> bool {
        self.up.state.is_closed()
    }

    /// Stops reading. Another [`Self::join`] delivers what was read.
    pub(crate) fn stop(&mut self) {
        self.up.state.break_off(Cause::Stopped);
        self.down.state.break_off(Cause::Stopped);
    }

    /// Relays between client and backend until both have ended, one has failed, or nothing moves
    /// any more.
    ///
    /// This shuts down a side when the other side's stream ends, and closes nothing beyond that.
    /// The caller decides how to end a failed connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read and not written stays here and in the backend.
    pub(crate) async fn join<B: Endpoint>(&mut self, backend: &mut B, relay: Relay<'_>) -> End {
        let mut joined = Joined {
            joint: self,
            backend,
            traffic: relay.traffic,
        };
        drive(&mut joined, relay.settings).await
    }
}

struct Joined<'a, C, B> {
    joint: &'a mut Joint<C>,
    backend: &'a mut B,
    traffic: &'a Traffic,
}

impl<C: Endpoint, B: Endpoint> Directions for Joined<'_, C, B> {
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut up = Flow {
            lane: &mut self.joint.up,
            reader: &mut self.joint.client,
            writer: self.backend,
            counter: &self.traffic.from_client,
        };
        pump(&mut up, cx, on_end)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut down = Flow {
            lane: &mut self.joint.down,
            reader: self.backend,
            writer: &mut self.joint.client,
            counter: &self.traffic.to_client,
        };
        pump(&mut down, cx, on_end)
    }

    fn states(&mut self) -> (&mut State, &mut State) {
        (&mut self.joint.up.state, &mut self.joint.down.state)
    }

    fn progress(&mut self) -> Progress {
        let holds = (self.joint.client.lender()).is_some_and(|lender| lender.holds());
        Progress {
            up_is_blocked: !self.joint.up.unsent.is_empty() || self.backend.owes() || holds,
            moved: self.traffic.from_client.get() + self.traffic.to_client.get(),
        }
    }

    fn note(&self, moved: Instant) {
        self.traffic.moved(moved.into());
    }

    fn client_has_failed(&self) -> bool {
        self.joint.client.has_failed()
    }

    fn transmission(&mut self, side: Side) -> Option<Transmission> {
        match side {
            Side::Client => self.joint.client.transmission(),
            Side::Backend => self.backend.transmission(),
        }
    }
}

/// One direction in progress.
struct Flow<'a, R, W> {
    lane: &'a mut Lane,
    reader: &'a mut R,
    writer: &'a mut W,
    counter: &'a Counter,
}

impl<R: Endpoint, W: Endpoint> Flow<'_, R, W> {
    fn go_on(&mut self, then: Then) -> Result<(), Fault> {
        match then {
            Then::More => {}
            Then::End => self.lane.state = State::Ending,
            Then::Failed(fault) => return Err(fault),
        }
        Ok(())
    }
}

impl<R: Endpoint, W: Endpoint> Direction for Flow<'_, R, W> {
    const SHARE: usize = 8;

    fn state(&mut self) -> &mut State {
        &mut self.lane.state
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Lane {
            state,
            unsent,
            unflushed,
        } = &mut *self.lane;
        if self.writer.is_mute() && matches!(state, State::Open | State::Broken(_) | State::Ending)
        {
            // After the alert that ends a broken connection, nothing may be sent on it.
            *state = State::Closing;
            unsent.clear();
        }
        let mut rest = Rest {
            unsent,
            unflushed,
            counter: self.counter,
        };
        let sent = self.writer.poll_rest(cx, &mut rest);
        if sent.is_pending() {
            self.reader.poll_absorb(cx);
        }
        sent
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        if self.writer.owes() {
            return Poll::Ready(Ok(()));
        }
        if self.writer.poll_room(cx).is_pending() {
            self.reader.poll_absorb(cx);
            return Poll::Pending;
        }
        if let (Some(lender), Some(sink)) = (self.reader.lender(), self.writer.sink()) {
            let Poll::Ready(passed) = poll_pass(lender, sink, cx, on_end) else {
                self.reader.poll_absorb(cx);
                return Poll::Pending;
            };
            let (count, then) = passed?;
            self.lane.unflushed |= count > 0;
            self.counter.add(count);
            return Poll::Ready(self.go_on(then));
        }
        if let Some(keeper) = self.writer.keeper() {
            let (count, then) = ready!(poll_keep(self.reader, keeper, cx, on_end))?;
            self.lane.unflushed |= count > 0;
            self.counter.add(count);
            return Poll::Ready(self.go_on(then));
        }
        let layout = self.writer.layout();
        let then = with_scratch(|scratch, pieces| {
            pieces.clear(layout);
            let then = ready!(self.reader.poll_receive(cx, scratch, pieces, on_end))?;
            if pieces.length() > 0 {
                let mut rest = Rest {
                    unsent: &mut self.lane.unsent,
                    unflushed: &mut self.lane.unflushed,
                    counter: self.counter,
                };
                self.writer.send(cx, scratch, pieces, &mut rest)?;
            }
            Poll::Ready(Ok(then))
        });
        then.map(|then| self.go_on(then?))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lane.unflushed {
            ready!(self.writer.poll_flush(cx))?;
            self.lane.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn say_end(&mut self) {
        self.writer.say_end();
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_shutdown(cx)
    }

    /// Both sockets have ended, and all bytes were delivered: the caller of the relay closes them.
    fn is_last(&mut self, cx: &mut Context<'_>) -> bool {
        self.writer.ends_by_close() && matches!(self.reader.poll_discard(cx), Poll::Ready(Ok(())))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reader.poll_discard(cx)
    }

    fn forget(&mut self) {
        self.lane.unsent.clear();
    }
}

#[cfg(test)]
mod tests;
