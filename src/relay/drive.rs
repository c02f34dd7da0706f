//! What both relays have in common: when two directions and the timers make an end.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use super::quiet::{Phase, Quiet, Stalled};
use super::{Answer, End, Settings};

/// Two directions: up from the client to the backend, and down.
pub(super) trait Directions {
    /// Moves what can be moved, but no more than a share of it at a time; ready when nothing more
    /// can ever be.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// As [`Self::poll_up`]. Where the writing of the other direction has failed, `on_end` says what
    /// an end read here means.
    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>>;

    fn progress(&self) -> Progress;

    /// Whether the client's connection is known to have failed, without reading from it.
    fn client_has_failed(&self) -> bool;
}

/// How far the two directions are.
pub(super) struct Progress {
    pub up_is_closed: bool,
    pub down_is_closed: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Open,
    /// The reader has ended; the writer is yet to be told.
    Ending,
    /// The writer is being told.
    Closing,
    Closed,
    /// The writer failed. Nothing is read any more.
    Refused(Answer),
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    /// With what it says of the answer, if it is the backend that reads no more.
    Write(Answer),
    /// Neither: nothing more can be sealed.
    KeysSpent,
}

impl Fault {
    /// A broken pipe is what a socket says whose peer had ended its own stream in order; any other
    /// failure may have cut it short.
    pub(super) fn write(error: io::Error) -> Self {
        Self::Write(match error.kind() {
            io::ErrorKind::BrokenPipe => Answer::Whole,
            _ => Answer::Broken,
        })
    }
}

/// Runs both directions until both have ended, one has failed, or nothing moves any more.
///
/// While the backend takes nothing the client is not read, and a reset of it would not be heard: it
/// is looked for once a second.
pub(super) async fn drive(directions: &mut impl Directions, settings: Settings) -> End {
    let mut quiet = pin!(Quiet::new(settings));
    let mut stalled = Stalled::default();
    poll_fn(|cx| {
        let before = directions.progress().moved;
        if let Poll::Ready(end) = poll_both(directions, cx) {
            return Poll::Ready(end);
        }
        let now = directions.progress();
        if stalled.is_due(cx, now.up_is_blocked) && directions.client_has_failed() {
            return Poll::Ready(End::ClientReset);
        }
        let phase = match (now.up_is_closed, now.down_is_closed) {
            (true, true) => return Poll::Ready(End::Done),
            (false, false) => Phase::Open,
            (true, false) | (false, true) => Phase::HalfClosed,
        };
        quiet.as_mut().poll(cx, phase, now.moved != before)
    })
    .await
}

/// Moves what can be moved both ways. Ready when that ends the relay.
fn poll_both(directions: &mut impl Directions, cx: &mut Context<'_>) -> Poll<End> {
    // A backend that reads no more may still have an answer on its way; only the other direction
    // can say when that is over.
    let refused = match directions.poll_up(cx) {
        Poll::Ready(Err(Fault::Read(error))) => return Poll::Ready(client_fault(&error)),
        Poll::Ready(Err(Fault::Write(answer))) => Some(answer),
        Poll::Ready(Err(Fault::KeysSpent)) => return Poll::Ready(End::KeysSpent),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    };
    let on_end = match refused {
        // The write has taken the socket's error with it: to a read it looks like an end.
        Some(Answer::Broken) => OnEnd::Fail,
        Some(Answer::Whole) | None => OnEnd::PassOn,
    };
    match (directions.poll_down(cx, on_end), refused) {
        (Poll::Ready(Err(Fault::Read(_))), _) => Poll::Ready(End::BackendReset(Answer::Broken)),
        (Poll::Ready(Err(Fault::Write(_))), _) => Poll::Ready(End::ClientReset),
        (Poll::Ready(Err(Fault::KeysSpent)), _) => Poll::Ready(End::KeysSpent),
        (Poll::Ready(Ok(())), Some(answer)) => Poll::Ready(End::BackendReset(answer)),
        (Poll::Ready(Ok(())), None) | (Poll::Pending, _) => Poll::Pending,
    }
}

/// TLS that ends without `close_notify` is reported as an unexpected end of file, as rustls does.
fn client_fault(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => End::ClientTruncated,
        _ => End::ClientReset,
    }
}
