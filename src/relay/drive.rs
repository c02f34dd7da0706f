//! What both relays have in common: how one direction moves, and when two directions and the timers
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

use super::quiet::{Arrival, Lull, Phase, Quiet, Side, Stalled};
use super::{Answer, End, Settings};
use crate::wire::Transmission;

/// Two directions: up from the client to the backend, and down.
pub(super) trait Directions {
    /// Moves what can be moved, but no more than a share of it at a time; ready when nothing more
    /// can ever be. Where the writing of the other direction has failed, `on_end` says what an end
    /// read here means.
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>>;

    /// As [`Self::poll_up`].
    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>>;

    fn states(&mut self) -> (&mut State, &mut State);

    fn progress(&self) -> Progress;

    /// Whether the client's connection is known to have failed, without reading from it.
    fn client_has_failed(&self) -> bool;

    /// What the sockets of client and backend have still to deliver.
    fn transmissions(&mut self) -> Transmissions;
}

/// Of the client's socket and the backend's.
#[derive(Default)]
pub(super) struct Transmissions {
    pub client: Option<Transmission>,
    pub backend: Option<Transmission>,
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
pub(super) enum OnEnd {
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
pub(super) enum Cause {
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
pub(super) enum Fault {
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
) -> Poll<Result<(), Fault>> {
    loop {
        match ready!(advance(direction, cx, on_end)) {
            // Its bytes are still in our hands.
            Err(Fault::Read(cause)) if *direction.state() == State::Open => {
                *direction.state() = State::Broken(cause);
            }
            Err(Fault::Write(answer)) => {
                *direction.state() = State::Refused(answer);
                direction.forget();
                return Poll::Ready(Err(Fault::Write(answer)));
            }
            moved => return Poll::Ready(moved),
        }
    }
}

fn advance<D: Direction>(
    direction: &mut D,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<Result<(), Fault>> {
    for _ in 0..D::SHARE {
        if let State::Refused(answer) = *direction.state() {
            return Poll::Ready(Err(Fault::Write(answer)));
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
            State::Broken(cause) => {
                ready!(direction.poll_flush(cx)).map_err(Fault::write)?;
                return Poll::Ready(Err(Fault::Read(cause)));
            }
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
/// reset would destroy them in the socket. That takes [`Settings::half_close`] without progress at
/// most.
pub(super) async fn drive(directions: &mut impl Directions, settings: &Settings) -> End {
    let mut quiet = pin!(Quiet::new(settings));
    let mut stalled = Stalled::default();
    let mut arrival = Arrival::default();
    let mut client_has_failed = false;
    poll_fn(|cx| {
        let before = directions.progress().moved;
        let over = poll_both(directions, cx);
        let now = directions.progress();
        // While the backend takes nothing the client is not read, and a reset of it would not be
        // heard: it is looked for once a second. Its bytes still come first.
        if stalled.is_due(cx, now.up_is_blocked) {
            client_has_failed |= directions.client_has_failed();
        }
        let mut moved = now.moved != before;
        if let Some((end, receivers)) = over {
            match receivers.acknowledged(directions.transmissions()) {
                None => return Poll::Ready(end),
                Some(acknowledged) => moved |= arrival.poll(cx, acknowledged),
            }
        }
        let (up, down) = directions.states();
        let phase = match (*up, *down) {
            (State::Open, State::Open) if !client_has_failed => Phase::Open,
            _ => Phase::HalfClosed,
        };
        let look = || directions.transmissions();
        let lull = ready!(quiet.as_mut().poll(cx, phase, moved, look));
        if let Some((end, _)) = over {
            return Poll::Ready(end);
        }
        match lull {
            Lull::Idle => return Poll::Ready(End::Idle),
            Lull::HalfClosed if client_has_failed => return Poll::Ready(End::ClientReset),
            Lull::HalfClosed => return Poll::Ready(half_closed(directions.states())),
            Lull::Silent(side) => give_up(side, directions.states()),
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// How a relay ends in which nothing has moved since one direction ended.
fn half_closed(states: (&mut State, &mut State)) -> End {
    match states {
        (State::Broken(Cause::Stopped), _) => End::BackendReset(Answer::Broken),
        (State::Broken(cause), _) => client_fault(*cause),
        (_, State::Refused(_)) => End::ClientReset,
        _ => End::HalfClosed,
    }
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

/// Who has still to acknowledge what came before an end.
#[derive(Clone, Copy)]
enum Receivers {
    Nobody,
    Client,
    Backend,
    Both,
}

impl Receivers {
    /// How many bytes they have acknowledged; `None` when that is all of them.
    fn acknowledged(self, transmissions: Transmissions) -> Option<u64> {
        let Transmissions { client, backend } = transmissions;
        let receivers = match self {
            Self::Nobody => return None,
            Self::Client => [client, None],
            Self::Backend => [None, backend],
            Self::Both => [client, backend],
        };
        let owing = |it: &Transmission| it.is_unacknowledged;
        let mut owing = receivers.into_iter().flatten().filter(owing).peekable();
        owing.peek()?;
        Some(owing.map(|it| it.acknowledged).sum())
    }
}

/// Moves what can be moved both ways. If nothing more can be: how the relay ends, and who has still to
/// acknowledge what came before.
fn poll_both(directions: &mut impl Directions, cx: &mut Context<'_>) -> Option<(End, Receivers)> {
    let on_end = on_end_beside(*directions.states().1);
    let mut up = directions.poll_up(cx, on_end);
    let on_end = on_end_beside(*directions.states().0);
    let mut down = directions.poll_down(cx, on_end);
    // Where one side has failed the other one is read no more, and gets what was read for it.
    if let (Poll::Ready(Err(Fault::Read(_))), Poll::Pending) = (&up, &down)
        && directions.states().1.break_off(Cause::Stopped)
    {
        down = directions.poll_down(cx, OnEnd::PassOn);
    }
    if let (Poll::Pending, Poll::Ready(Err(Fault::Read(_)))) = (&up, &down)
        && directions.states().0.break_off(Cause::Stopped)
    {
        up = directions.poll_up(cx, OnEnd::PassOn);
    }
    match (up, down) {
        (Poll::Ready(up), Poll::Ready(down)) => Some(judge(up, down, directions.states())),
        // A side that reads no more may still say something: only the other direction can tell
        // when that is over.
        (Poll::Pending, _) | (_, Poll::Pending) => None,
    }
}

/// A write that has failed may have taken the socket's error with it: to a read it looks like an end.
fn on_end_beside(opposite: State) -> OnEnd {
    match opposite {
        State::Refused(Answer::Broken) => OnEnd::Fail,
        _ => OnEnd::PassOn,
    }
}

fn judge(
    up: Result<(), Fault>,
    down: Result<(), Fault>,
    (up_state, down_state): (&mut State, &mut State),
) -> (End, Receivers) {
    use Fault::{Read, Write};
    match (up, down) {
        (Ok(()), Ok(())) => (End::Done, after(*up_state, *down_state)),
        (Err(Read(Cause::KeysSpent)), _) | (_, Err(Read(Cause::KeysSpent))) => {
            (End::KeysSpent, Receivers::Both)
        }
        (Err(Read(Cause::Stopped)), Err(Read(Cause::Stopped))) => (End::Stopped, Receivers::Both),
        (Ok(()) | Err(Write(_)), Err(Read(_))) => {
            (End::BackendReset(Answer::Broken), Receivers::Client)
        }
        (Err(Read(Cause::Stopped)), Err(Read(_))) => {
            (End::BackendReset(Answer::Broken), Receivers::Both)
        }
        (Err(Read(cause)), Err(Read(_))) => (client_fault(cause), Receivers::Both),
        (Err(Read(cause)), Ok(()) | Err(Write(_))) => (client_fault(cause), Receivers::Backend),
        (Err(Write(answer)), Ok(())) => (End::BackendReset(answer), Receivers::Client),
        (Ok(()), Err(Write(_))) => (End::ClientReset, Receivers::Backend),
        (Err(Write(_)), Err(Write(_))) => (End::ClientReset, Receivers::Nobody),
    }
}

/// Those whose sockets have not ended: what they may still send would make the kernel answer our close
/// with a reset, and that destroys what is on its way to them.
fn after(up: State, down: State) -> Receivers {
    match (up, down) {
        (State::Ended, State::Ended) => Receivers::Nobody,
        (_, State::Ended) => Receivers::Client,
        (State::Ended, _) => Receivers::Backend,
        _ => Receivers::Both,
    }
}

fn client_fault(cause: Cause) -> End {
    match cause {
        Cause::Truncated => End::ClientTruncated,
        Cause::KeysSpent => End::KeysSpent,
        Cause::Reset | Cause::Stopped => End::ClientReset,
    }
}
