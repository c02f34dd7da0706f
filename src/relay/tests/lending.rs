//! A client that lends what it has received, and keeps the memory that was filled for it, as a stream of a tunnel does.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::over::Socket;
use crate::wire::{Keep, Lend, Peer};

pub(super) struct Lending {
    pub socket: Socket,
    /// Received and not consumed, in pieces as they have come.
    pieces: VecDeque<Vec<u8>>,
    end: Option<Result<(), io::ErrorKind>>,
    /// Kept and not sent.
    kept: Vec<u8>,
    failed: Option<io::ErrorKind>,
}

impl Lending {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            pieces: VecDeque::new(),
            end: None,
            kept: Vec::new(),
            failed: None,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<io::Result<()>> {
        while self.end.is_none() && self.pieces.len() < enough {
            let mut bytes = vec![0; 16 * 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => match buffer.filled() {
                    [] => self.end = Some(Ok(())),
                    some => self.pieces.push_back(some.to_vec()),
                },
                Poll::Ready(Err(error)) => self.end = Some(Err(error.kind())),
                Poll::Pending if self.pieces.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(match self.end {
            Some(Err(kind)) if self.pieces.is_empty() => Err(kind.into()),
            _ => Ok(()),
        })
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.kept))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl Lend for Lending {
    fn poll_lend<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        slices: &mut [IoSlice<'a>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_fill(cx, 3))?;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn consume(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.pieces.front_mut().expect("it was lent");
            let part = count.min(first.len());
            first.drain(..part);
            count -= part;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    fn holds(&self) -> bool {
        !self.pieces.is_empty()
    }
}

impl Keep for Lending {
    fn room(&mut self) -> Vec<u8> {
        vec![0xAA; 1_000]
    }

    fn keep(&mut self, room: Vec<u8>, length: usize) -> io::Result<()> {
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        assert!(self.kept.is_empty(), "there was room");
        self.kept = room;
        self.kept.truncate(length);
        Ok(())
    }
}

impl Peer for Lending {
    fn has_failed(&self) -> bool {
        self.socket.has_failed()
    }

    /// Also if it has failed, which the next write says.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sent = ready!(self.poll_kept(cx));
        self.failed = sent.err().map(|error| error.kind());
        Poll::Ready(())
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        let _ = self.poll_fill(cx, 4);
    }

    fn lender(&mut self) -> Option<&mut dyn Lend> {
        Some(self)
    }

    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        Some(self)
    }
}

impl AsyncRead for Lending {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fill(cx, 1))?;
        if let Some(piece) = this.pieces.front() {
            let count = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..count]);
            this.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lending {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}
