//! The common part of all relays: how one direction moves, and when two directions and the timers
//! make an end.
//!
//! ```text
//! Open ─► Ending ─► Closing ─► Closed ─► Ended      the reader ended in order
//!   ├───► Broken                                    the reader failed: its bytes come first
//!   └───► Refused                                   the writer failed: nothing can be delivered
//!
//! Closing ─► Ended                                   both sockets have ended: a close tells the rest
//! Closed ─► Broken                                   a stream of a tunnel that is reset after its end
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(super) use super::Side;
use super::idle_timer::{Expired, IdleTimer, Phase, Stalled};
use super::{Answer, End, InactivityTimeouts};
use crate::wire::{Arrival, Transmission};

/// Two directions: up from the client to the backend, and down.
pub(super) trait Directions {
    /// Moves what can be moved, at most [`Direction::SHARE`] reads at a time. It is ready when
    /// nothing can move any more, and the state then says why. If the writing of the other
    /// direction has failed, `on_end` says how to interpret the end of this direction's reader.
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()>;

    /// Like [`Self::poll_up`].
    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()>;

    fn states(&mut self) -> (&mut State, &mut State);

    fn progress(&mut self) -> Progress;

    /// Publishes when bytes moved.
    fn note(&self, moved: Instant);

    /// Whether the client's connection is known to have failed, without a read.
    fn client_has_failed(&self) -> bool;

    /// The bytes that one side's socket has not delivered to its peer yet.
    fn transmission(&mut self, side: Side) -> Option<Transmission>;
}

/// The progress of the two directions.
pub(super) struct Progress {
    /// Whether the backend does not accept what the client has sent.
    pub up_is_blocked: bool,
    /// Bytes in both directions.
    pub moved: u64,
}

/// How to interpret the end of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnEnd {
    PassOn,
    /// Its connection is known to have failed.
    Fail,
}

/// The state of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    #[default]
    Open,
    /// The reader failed. What it sent before must still be delivered.
    Broken(Cause),
    /// The reader has ended; the writer has not been told yet.
    Ending,
    /// The writer is being told.
    Closing,
    /// The writer was told. What still arrives at the reader's socket is discarded (RFC 8446 §6.1).
    Closed,
    /// The reader's socket has ended too.
    Ended,
    /// The writer failed. Nothing more is read.
    Refused(Answer),
}

impl State {
    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::Ended)
    }

    /// Stops reading; what was read is still delivered. Returns false if nothing was being read any
    /// more.
    pub(super) fn break_off(&mut self, cause: Cause) -> bool {
        let was_open = *self == Self::Open;
        if was_open {
            *self = Self::Broken(cause);
        }
        was_open
    }
}

/// Why a reader failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// Its connection failed.
    Reset,
    /// Its stream ended without `close_notify`.
    Truncated,
    /// It did not fail: our keys cannot seal any more records.
    KeysSpent,
    /// It did not fail: the relay was told to stop.
    Stopped,
}

/// TLS without `close_notify` is reported as an unexpected end of file, as rustls does.
impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Reset,
        }
    }
}

/// Which end of a direction failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Read(Cause),
    /// With the state of the answer, for the case that the backend is the writer.
    Write(Answer),
}

impl Fault {
    pub(super) fn read(error: io::Error) -> Self {
        Self::Read(error.into())
    }

    /// A socket reports a broken pipe if its peer had ended its own stream in order. Every other
    /// error may mean that the stream was truncated.
    pub(super) fn write(error: io::Error) -> Self {
        Self::Write(match error.kind() {
            io::ErrorKind::BrokenPipe => Answer::Whole,
            _ => Answer::Broken,
        })
    }
}

/// One direction in the form in which a relay moves it.
pub(super) trait Direction {
    /// The number of reads in a row. A direction without this limit would use up the task's
    /// cooperative budget at every turn, and the other direction would never move.
    const SHARE: usize;

    fn state(&mut self) -> &mut State;

    /// Writes what remains of earlier reads.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Reads once and writes what was read. At the reader's end, the state becomes
    /// [`State::Ending`].
    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>>;

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Announces the end in the writer's stream, if it needs more than a shutdown.
    fn say_end(&mut self) {}

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the relay ends now, so that the close of the writer's socket saves its shutdown.
    fn is_last(&mut self, cx: &mut Context<'_>) -> bool;

    /// Reads and discards what still arrives at the reader's socket. Ready when the socket has
    /// ended. An error: it has failed after all.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Discards what the writer will never accept.
    fn forget(&mut self);
}

/// Moves what can be moved, at most a share of it at a time: first bytes, then the end.
pub(super) fn pump<D: Direction>(
    direction: &mut D,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<()> {
    loop {
        match ready!(advance(direction, cx, on_end)) {
            // The bytes that were read before have not been delivered yet.
            Err(Fault::Read(cause)) => *direction.state() = State::Broken(cause),
            Err(Fault::Write(answer)) => {
                *direction.state() = State::Refused(answer);
                direction.forget();
            }
            Ok(()) => return Poll::Ready(()),
        }
    }
}

fn advance<D: Direction>(
    direction: &mut D,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<Result<(), Fault>> {
    for _ in 0..D::SHARE {
        if matches!(direction.state(), State::Refused(_)) {
            return Poll::Ready(Ok(()));
        }
        ready!(direction.poll_rest(cx))?;
        match *direction.state() {
            State::Open => {
                if direction.poll_move(cx, on_end)?.is_pending() {
                    // Flush before waiting: the peer may be waiting for exactly these bytes.
                    ready!(direction.poll_flush(cx)).map_err(Fault::write)?;
                    return Poll::Pending;
                }
            }
            State::Broken(_) => return direction.poll_flush(cx).map_err(Fault::write),
            State::Ending => {
                // Flushed separately, so that an error below is about the end and not about bytes.
                ready!(direction.poll_flush(cx)).map_err(Fault::write)?;
                direction.say_end();
                *direction.state() = State::Closing;
            }
            State::Closing => ready!(poll_close(direction, cx))?,
            State::Closed => {
                match direction.poll_discard(cx) {
                    Poll::Ready(Ok(())) => *direction.state() = State::Ended,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::read(error))),
                    Poll::Pending => {}
                }
                return Poll::Ready(Ok(()));
            }
            State::Ended | State::Refused(_) => return Poll::Ready(Ok(())),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Tells the writer the end. Apart from the path of the bytes, which is kept short.
#[inline(never)]
fn poll_close<D: Direction>(direction: &mut D, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
    if direction.is_last(cx) {
        *direction.state() = State::Ended;
        return Poll::Ready(Ok(()));
    }
    match ready!(direction.poll_shutdown(cx)) {
        Ok(()) => {}
        // The peer has gone meanwhile. If that truncated its own stream, the other direction
        // reports it.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        Err(error) => return Poll::Ready(Err(Fault::write(error))),
    }
    *direction.state() = State::Closed;
    Poll::Ready(Ok(()))
}

/// Runs both directions until both have ended, one has failed, or nothing moves any more.
///
/// After a failure of one side, this waits until the other side has acknowledged the bytes before
/// it: a reset would destroy them in the socket. It waits at most
/// [`InactivityTimeouts::half_close`] without progress.
pub(super) async fn drive(directions: &mut impl Directions, settings: &InactivityTimeouts) -> End {
    let mut quiet = pin!(IdleTimer::new(settings));
    let mut stalled = Stalled::default();
    let mut arrival = Arrival::default();
    let mut client_has_failed = false;
    poll_fn(|cx| {
        let before = directions.progress().moved;
        let is_over = poll_both(directions, cx);
        let now = directions.progress();
        // While the backend accepts nothing, the client is not read, and its reset would not be
        // noticed. So this checks for one once a second. The client's bytes are still delivered
        // first.
        if stalled.is_due(cx, now.up_is_blocked) {
            client_has_failed |= directions.client_has_failed();
        }
        let mut moved = now.moved != before;
        if is_over {
            let (end, receivers) = judge(directions);
            match acknowledged(directions, receivers) {
                None => return Poll::Ready(end),
                Some(acknowledged) => moved |= arrival.poll(cx, acknowledged),
            }
        }
        let (up, down) = directions.states();
        let phase = match (*up, *down) {
            (State::Open, State::Open) if !client_has_failed => Phase::Open,
            _ => Phase::HalfClosed,
        };
        let moved = moved.then(Instant::now);
        moved.into_iter().for_each(|at| directions.note(at));
        let look = |side| directions.transmission(side);
        let lull = ready!(quiet.as_mut().poll(cx, phase, moved, look));
        match lull {
            _ if is_over => return Poll::Ready(judge(directions).0),
            Expired::Idle => return Poll::Ready(End::Idle),
            Expired::HalfClosed if client_has_failed => return Poll::Ready(End::ClientReset),
            Expired::HalfClosed => return Poll::Ready(judge(directions).0),
            Expired::Silent(side) => give_up(side, directions.states()),
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Treats the connection of a silent side as failed. What it sent before is still delivered.
fn give_up(side: Side, (up, down): (&mut State, &mut State)) {
    let (from, to) = match side {
        Side::Client => (up, down),
        Side::Backend => (down, up),
    };
    from.break_off(Cause::Reset);
    *to = State::Refused(Answer::Broken);
}

/// Moves both directions. Returns whether nothing can move any more.
fn poll_both(directions: &mut impl Directions, cx: &mut Context<'_>) -> bool {
    let on_end = on_end_beside(*directions.states().1);
    let mut up = directions.poll_up(cx, on_end);
    let on_end = on_end_beside(*directions.states().0);
    let mut down = directions.poll_down(cx, on_end);
    // If one side has failed, the other one is not read any more, and receives what was read for
    // it.
    let has_failed = |state: &State| matches!(state, State::Broken(_));
    if up.is_ready() && down.is_pending() {
        let (up, other) = directions.states();
        if has_failed(up) && other.break_off(Cause::Stopped) {
            down = directions.poll_down(cx, OnEnd::PassOn);
        }
    } else if up.is_pending() && down.is_ready() {
        let (other, down) = directions.states();
        if has_failed(down) && other.break_off(Cause::Stopped) {
            up = directions.poll_up(cx, OnEnd::PassOn);
        }
    }
    // A side that reads no more may still send something, and only the other direction knows when
    // that is over.
    up.is_ready() && down.is_ready()
}

/// A failed write may have taken the error from the socket: to a later read it looks like an end.
fn on_end_beside(opposite: State) -> OnEnd {
    match opposite {
        State::Refused(Answer::Broken) => OnEnd::Fail,
        _ => OnEnd::PassOn,
    }
}

/// How the relay ends if nothing moves any more, and which sides must still acknowledge bytes.
fn judge(directions: &mut impl Directions) -> (End, &'static [Side]) {
    use State::{Broken, Closed, Ended, Refused};
    const NOBODY: &[Side] = &[];
    const CLIENT: &[Side] = &[Side::Client];
    const BACKEND: &[Side] = &[Side::Backend];
    const BOTH: &[Side] = &[Side::Client, Side::Backend];
    let (up, down) = directions.states();
    match (*up, *down) {
        (Broken(Cause::KeysSpent), _) | (_, Broken(Cause::KeysSpent)) => (End::KeysSpent, BOTH),
        (Broken(Cause::Stopped), Broken(Cause::Stopped)) => (End::Stopped, BOTH),
        (Broken(Cause::Stopped), Broken(_)) => (End::BackendReset(Answer::Broken), BOTH),
        (Broken(cause), Broken(_)) => (client_fault(cause), BOTH),
        (Broken(cause), _) => (client_fault(cause), BACKEND),
        (_, Broken(_)) => (End::BackendReset(Answer::Broken), CLIENT),
        (Refused(_), Refused(_)) => (End::ClientReset, NOBODY),
        (_, Refused(_)) => (End::ClientReset, BACKEND),
        (Refused(answer), Closed | Ended) => (End::BackendReset(answer), CLIENT),
        // A peer that has not ended may still send something, and the kernel would then answer our
        // close with a reset, which destroys bytes in flight.
        (Ended, Ended) => (End::Done, NOBODY),
        (Closed, Ended) => (End::Done, CLIENT),
        (Ended, Closed) => (End::Done, BACKEND),
        (Closed, Closed) => (End::Done, BOTH),
        _ => (End::HalfClosed, BOTH),
    }
}

fn client_fault(cause: Cause) -> End {
    match cause {
        Cause::Truncated => End::ClientTruncated,
        Cause::KeysSpent => End::KeysSpent,
        Cause::Reset | Cause::Stopped => End::ClientReset,
    }
}

/// How many bytes the receivers have acknowledged; `None` if they have acknowledged all of them.
fn acknowledged(directions: &mut impl Directions, receivers: &[Side]) -> Option<u64> {
    let transmissions = receivers.iter().map(|side| directions.transmission(*side));
    let owing = transmissions.flatten().filter(|it| it.is_unacknowledged);
    owing.map(|it| it.acknowledged).reduce(u64::wrapping_add)
}
