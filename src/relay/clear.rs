//! A side of a relay without our record layer: a socket, memory, or TLS in rustls.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, ReadBuf};

use super::drive::{Fault, OnEnd};
use super::endpoint::{Endpoint, Rest, Then};
use crate::record::{Layout, Pieces};
use crate::wire::{Keep, Lend, Peer, Transmission};

/// A stream of payload. It may buffer bytes until it is flushed.
impl<S: Peer> Endpoint for S {
    fn layout(&self) -> Layout {
        Layout::PLAIN
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &mut Pieces,
        on_end: OnEnd,
    ) -> Poll<Result<Then, Fault>> {
        let read = match pieces.layout() {
            Layout::PLAIN => {
                let room = scratch.len().min(MOST_READ);
                let mut buffer = ReadBuf::new(&mut scratch[..room]);
                let read = Pin::new(self).poll_read(cx, &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            }
            layout => self.poll_read_vectored(cx, layout.places(scratch)),
        };
        let read = ready!(read).map_err(Fault::read)?;
        pieces.add_read(read);
        Poll::Ready(match read {
            0 => Then::at_end(on_end),
            _ => Ok(Then::More),
        })
    }

    fn room(&self, bytes: usize) -> usize {
        bytes
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &Pieces,
        rest: &mut Rest<'_>,
    ) -> Result<(), Fault> {
        let bytes = &scratch[..pieces.length()];
        let taken = match Pin::new(self).poll_write(cx, bytes) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(error)) => return Err(Fault::write(error)),
            Poll::Pending => 0,
        };
        *rest.unflushed |= taken > 0;
        rest.counter.add(taken);
        rest.unsent.extend(&bytes[taken..]);
        Ok(())
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, rest: &mut Rest<'_>) -> Poll<Result<(), Fault>> {
        let Rest {
            unsent,
            unflushed,
            counter,
        } = rest;
        let sent = unsent.poll_write(cx, self, |taken| {
            **unflushed = true;
            counter.add(taken);
        });
        sent.map_err(Fault::write)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Peer::poll_room(self, cx)
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        Peer::poll_absorb(self, cx);
    }

    fn lender(&mut self) -> Option<&mut dyn Lend> {
        Peer::lender(self)
    }

    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        Peer::keeper(self)
    }

    fn sink(&mut self) -> Option<Pin<&mut dyn AsyncWrite>> {
        let this: Pin<&mut Self> = Pin::new(self);
        Some(this)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Peer::poll_discard(self, cx)
    }

    fn has_failed(&self) -> bool {
        Peer::has_failed(self)
    }

    fn transmission(&mut self) -> Option<Transmission> {
        Peer::transmission(self)
    }
}

/// If nothing is sealed, longer reads gained nothing.
const MOST_READ: usize = 64 * 1024;
