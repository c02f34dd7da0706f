//! What all relays have in common: how one direction moves, and when two directions and the timers
//! make an end.
//!
//! ```text
//! Open ─► Ending ─► Closing ─► Closed ─► Ended      the reader ended in order
//!   ├───► Broken                                    the reader failed: its bytes come first
//!   └───► Refused                                   the writer failed: nothing can be delivered
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};

pub(super) use super::Side;
use super::idle_timer::{Arrival, Expired, IdleTimer, Phase, Stalled};
use super::{Answer, End, InactivityTimeouts};
use crate::wire::Transmission;

/// Two directions: up from the client to the backend, and down.
pub(super) trait Directions {
    /// Moves what can be moved, but no more than a share of it at a time; ready when nothing more
    /// can ever be, and then the state says why. Where the writing of the other direction has failed,
    /// `on_end` says what an end read here means.
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()>;

    /// As [`Self::poll_up`].
    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()>;

    fn states(&mut self) -> (&mut State, &mut State);

    fn progress(&self) -> Progress;

    /// Whether the client's connection is known to have failed, without reading from it.
    fn client_has_failed(&self) -> bool;

    /// What the socket of one side has still to deliver to it.
    fn transmission(&mut self, side: Side) -> Option<Transmission>;
}

/// How far the two directions are.
pub(super) struct Progress {
    /// The backend has not taken what the client sent.
    pub up_is_blocked: bool,
    /// Bytes, both ways.
    pub moved: u64,
}

/// What the reader's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnEnd {
    PassOn,
    /// Its connection is known to have failed.
    Fail,
}

/// One direction's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    #[default]
    Open,
    /// The reader failed. What it said before is still to be delivered.
    Broken(Cause),
    /// The reader has ended; the writer is yet to be told.
    Ending,
    /// The writer is being told.
    Closing,
    /// The writer was told. What the reader's socket still says is dropped (RFC 8446 §6.1).
    Closed,
    /// The reader's socket has ended as well.
    Ended,
    /// The writer failed. Nothing is read any more.
    Refused(Answer),
}

impl State {
    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::Ended)
    }

    /// Reads no more; what was read is still delivered. False where nothing was read any more.
    pub(super) fn break_off(&mut self, cause: Cause) -> bool {
        let was_open = *self == Self::Open;
        if was_open {
            *self = Self::Broken(cause);
        }
        was_open
    }
}

/// Why a reader has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// Its connection failed.
    Reset,
    /// Its stream ended where TLS says that it did not.
    Truncated,
    /// It did not fail: nothing more can be sealed.
    KeysSpent,
    /// It did not fail: we read no more.
    Stopped,
}

/// TLS that ends without `close_notify` is reported as an unexpected end of file, as rustls does.
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
    /// With what it says of the answer, if it is the backend that reads no more.
    Write(Answer),
}

impl Fault {
    pub(super) fn read(error: io::Error) -> Self {
        Self::Read(error.into())
    }

    /// A broken pipe is what a socket says whose peer had ended its own stream in order; any other
    /// failure may have cut it short.
    pub(super) fn write(error: io::Error) -> Self {
        Self::Write(match error.kind() {
            io::ErrorKind::BrokenPipe => Answer::Whole,
            _ => Answer::Broken,
        })
    }
}

/// One direction, as a relay moves it.
pub(super) trait Direction {
    /// Reads in a row. A direction that went on for as long as it can would use up the task's whole
    /// cooperative budget at each turn, and the other one would never move.
    const SHARE: usize;

    fn state(&mut self) -> &mut State;

    /// Writes what is left of earlier reads.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Reads once and writes what came; at the reader's end the state is [`State::Ending`].
    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>>;

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says the end in the writer's stream, where that is not the shutdown alone.
    fn say_end(&mut self) {}

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads and drops what the reader's socket still says; ready when that has ended.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Drops what the writer will never take.
    fn forget(&mut self);
}

/// Moves what can be moved, but no more than a share of it at a time: bytes first, then the end.
pub(super) fn pump<D: Direction>(
    direction: &mut D,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<()> {
    loop {
        match ready!(advance(direction, cx, on_end)) {
            // Its bytes are still in our hands.
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
                    // Flush before parking: the peer may be waiting for just these bytes.
                    ready!(direction.poll_flush(cx)).map_err(Fault::write)?;
                    return Poll::Pending;
                }
            }
            State::Broken(_) => return direction.poll_flush(cx).map_err(Fault::write),
            State::Ending => {
                // Apart, so that an error below is about the end and not about bytes.
                ready!(direction.poll_flush(cx)).map_err(Fault::write)?;
                direction.say_end();
                *direction.state() = State::Closing;
            }
            State::Closing => {
                match ready!(direction.poll_shutdown(cx)) {
                    Ok(()) => {}
                    // It has gone since; if that cut its own stream short, the other direction
                    // says so.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                    Err(error) => return Poll::Ready(Err(Fault::write(error))),
                }
                *direction.state() = State::Closed;
            }
            State::Closed => {
                if direction.poll_discard(cx).is_ready() {
                    *direction.state() = State::Ended;
                }
                return Poll::Ready(Ok(()));
            }
            State::Ended | State::Refused(_) => return Poll::Ready(Ok(())),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Runs both directions until both have ended, one has failed, or nothing moves any more.
///
/// A failure of one side waits until the other side has acknowledged the bytes that came before it: a
/// reset would destroy them in the socket. That takes [`InactivityTimeouts::half_close`] without progress at
/// most.
pub(super) async fn drive(directions: &mut impl Directions, settings: &InactivityTimeouts) -> End {
    let mut quiet = pin!(IdleTimer::new(settings));
    let mut stalled = Stalled::default();
    let mut arrival = Arrival::default();
    let mut client_has_failed = false;
    poll_fn(|cx| {
        let before = directions.progress().moved;
        let is_over = poll_both(directions, cx);
        let now = directions.progress();
        // While the backend takes nothing the client is not read, and a reset of it would not be
        // heard: it is looked for once a second. Its bytes still come first.
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

/// Takes the connection of a silent side for failed. What it said before is still delivered.
fn give_up(side: Side, (up, down): (&mut State, &mut State)) {
    let (from, to) = match side {
        Side::Client => (up, down),
        Side::Backend => (down, up),
    };
    from.break_off(Cause::Reset);
    *to = State::Refused(Answer::Broken);
}

/// Moves what can be moved both ways; whether nothing more can ever be.
fn poll_both(directions: &mut impl Directions, cx: &mut Context<'_>) -> bool {
    let on_end = on_end_beside(*directions.states().1);
    let mut up = directions.poll_up(cx, on_end);
    let on_end = on_end_beside(*directions.states().0);
    let mut down = directions.poll_down(cx, on_end);
    // Where one side has failed the other one is read no more, and gets what was read for it.
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
    // A side that reads no more may still say something: only the other direction can tell when
    // that is over.
    up.is_ready() && down.is_ready()
}

/// A write that has failed may have taken the socket's error with it: to a read it looks like an end.
fn on_end_beside(opposite: State) -> OnEnd {
    match opposite {
        State::Refused(Answer::Broken) => OnEnd::Fail,
        _ => OnEnd::PassOn,
    }
}

/// How the relay ends if nothing moves any more, and who has still to acknowledge what came before.
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
        // A socket that has not ended may still be sent something, and then the kernel would answer
        // our close with a reset, which destroys what is on its way.
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

/// How many bytes the receivers have acknowledged; `None` when that is all of them.
fn acknowledged(directions: &mut impl Directions, receivers: &[Side]) -> Option<u64> {
    let transmissions = receivers.iter().map(|side| directions.transmission(*side));
    let owing = transmissions.flatten().filter(|it| it.is_unacknowledged);
    owing.map(|it| it.acknowledged).reduce(u64::wrapping_add)
}
