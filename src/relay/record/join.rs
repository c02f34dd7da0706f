//! The two directions of a record relay, each a loop over what its state calls for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::super::drive::{Directions, Fault, OnEnd, Progress, State};
use super::{ReadVectored, RecordStream, Wire};
use crate::traffic::Traffic;

/// Reads in a row, as of the stream relay, of twice the bytes each.
const SHARE: usize = 8;

/// A client and its backend while they are joined.
pub(super) struct Joined<'a, IO, B> {
    pub client: &'a mut RecordStream<IO>,
    pub backend: &'a mut B,
    pub traffic: &'a Traffic,
}

impl<IO, B> Directions for Joined<'_, IO, B>
where
    IO: Wire,
    B: ReadVectored + AsyncWrite,
{
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let moved = ready!(self.pump_up(cx));
        if let Err(Fault::Write(answer)) = moved {
            self.client.up = State::Refused(answer);
            self.client.opened.clear();
        }
        Poll::Ready(moved)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        let counter = &self.traffic.to_client;
        for _ in 0..SHARE {
            ready!(self.client.poll_send_rest(cx, counter))?;
            match self.client.down {
                State::Open => {
                    if self.client.keep_keys_fresh().is_err() {
                        return Poll::Ready(Err(Fault::KeysSpent));
                    }
                    if !self.client.sealed.is_empty() {
                        continue;
                    }
                    ready!(self.client.poll_send(cx, self.backend, counter, on_end))?;
                }
                // Apart, so that an error below is about the end and not about bytes.
                State::Ending => self.client.close_notify(),
                State::Closing => {
                    match ready!(Pin::new(&mut self.client.io).poll_shutdown(cx)) {
                        Ok(()) => {}
                        // It has gone since; if that cut its own stream short, the other
                        // direction says so.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        Err(error) => return Poll::Ready(Err(Fault::write(error))),
                    }
                    self.client.down = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
                State::Refused(answer) => return Poll::Ready(Err(Fault::Write(answer))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn progress(&self) -> Progress {
        Progress {
            up_is_closed: self.client.up == State::Closed,
            down_is_closed: self.client.down == State::Closed,
            up_is_blocked: !self.client.opened.is_empty(),
            moved: self.traffic.from_client.get() + self.traffic.to_client.get(),
        }
    }

    fn client_has_failed(&self) -> bool {
        self.client.io.has_failed()
    }
}

impl<IO, B> Joined<'_, IO, B>
where
    IO: Wire,
    B: ReadVectored + AsyncWrite,
{
    fn pump_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let counter = &self.traffic.from_client;
        let Self {
            client, backend, ..
        } = self;
        for _ in 0..SHARE {
            let sent = client
                .opened
                .poll_write(cx, backend, |taken| counter.add(taken));
            ready!(sent).map_err(Fault::write)?;
            match client.up {
                State::Open => match client.poll_receive(cx, *backend, counter)? {
                    Poll::Ready(()) => {}
                    Poll::Pending => {
                        // Flush before parking: with TLS, a backend's stream keeps what its socket
                        // did not take.
                        ready!(Pin::new(&mut **backend).poll_flush(cx)).map_err(Fault::write)?;
                        return Poll::Pending;
                    }
                },
                State::Ending => {
                    ready!(Pin::new(&mut **backend).poll_flush(cx)).map_err(Fault::write)?;
                    client.up = State::Closing;
                }
                State::Closing => {
                    match ready!(Pin::new(&mut **backend).poll_shutdown(cx)) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        Err(error) => return Poll::Ready(Err(Fault::write(error))),
                    }
                    client.up = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
                State::Refused(answer) => return Poll::Ready(Err(Fault::Write(answer))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
