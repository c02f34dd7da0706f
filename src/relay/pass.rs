//! Bytes that are passed on without a copy in the scratch: the reader lends them to the writer, or reads them into memory
//! that the writer keeps.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::drive::{Fault, OnEnd};
use super::endpoint::{Endpoint, Then, with_scratch};
use crate::record::Layout;
use crate::wire::{Keep, Lend};

/// Passes on what the reader has, with one write. Returns the number of bytes. What the writer does not take stays with
/// the reader.
pub(super) fn poll_pass(
    reader: &mut dyn Lend,
    writer: Pin<&mut dyn AsyncWrite>,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<Result<(usize, Then), Fault>> {
    let mut slices = [IoSlice::new(&[]); MOST_SLICES];
    let count = ready!(reader.poll_lend(cx, &mut slices)).map_err(Fault::read)?;
    if count == 0 {
        return Poll::Ready(Then::at_end(on_end).map(|then| (0, then)));
    }
    let taken = ready!(writer.poll_write_vectored(cx, &slices[..count])).map_err(Fault::write)?;
    if taken == 0 {
        return Poll::Ready(Err(Fault::write(io::ErrorKind::WriteZero.into())));
    }
    reader.consume(taken);
    Poll::Ready(Ok((taken, Then::More)))
}

/// Reads once into memory that the writer keeps. Returns the number of bytes.
pub(super) fn poll_keep(
    reader: &mut impl Endpoint,
    writer: &mut dyn Keep,
    cx: &mut Context<'_>,
    on_end: OnEnd,
) -> Poll<Result<(usize, Then), Fault>> {
    let mut room = writer.room();
    room.resize(room.len().max(reader.room(0)), 0);
    let received = with_scratch(|_, pieces| {
        pieces.clear(Layout::PLAIN);
        let received = reader.poll_receive(cx, &mut room, pieces, on_end);
        received.map_ok(|then| (pieces.length(), then))
    });
    let length = match &received {
        Poll::Ready(Ok((length, _))) => *length,
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    };
    writer.keep(room, length).map_err(Fault::write)?;
    received
}

/// Frames of 16 KiB for the longest write, and some short ones.
const MOST_SLICES: usize = 16;
