//! A server of tunnels that sends and reads single frames (RFC 9113 §4.1).

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Server, Tls};
use crate::common::soon;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// `:status: 200` (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];

pub(crate) struct Raw {
    tls: Tls,
    /// Frames that were read while others were awaited.
    kept: VecDeque<Frame>,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// The next tunnel, which is told that it may have `most` streams.
    pub(crate) async fn accept(server: &Server, most: u32) -> Self {
        let mut tls = server.secured().await;
        let mut preface = [0; 24];
        let read = soon("a preface", tls.read_exact(&mut preface)).await;
        read.expect("a preface");
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut raw = Self {
            tls,
            kept: VecDeque::new(),
        };
        raw.allow(most).await;
        raw
    }

    pub(crate) async fn allow(&mut self, most: u32) {
        let setting = [
            &MAX_CONCURRENT_STREAMS.to_be_bytes()[..],
            &most.to_be_bytes(),
        ];
        self.send(SETTINGS, 0, 0, &setting.concat()).await;
    }

    pub(crate) async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, OK).await;
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8]) {
        self.send(DATA, 0, stream, bytes).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn go_away(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let head = [&[a, b, c, kind, flags][..], &stream.to_be_bytes()].concat();
        let sent = self.tls.write_all(&[&head, payload].concat()).await;
        sent.expect("open");
        self.tls.flush().await.expect("open");
    }

    /// The stream of the next request.
    pub(crate) async fn asked(&mut self) -> u32 {
        self.next(HEADERS).await.stream
    }

    /// The next frame of this kind.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        if let Some(index) = self.kept.iter().position(|frame| frame.kind == kind) {
            return self.kept.remove(index).expect("just seen");
        }
        loop {
            let frame = soon("a frame", self.read()).await.expect("a frame");
            if frame.kind == kind {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// Waits until the tunnel has ended in order: with GOAWAY and a clean end of TLS.
    pub(crate) async fn ended(&mut self) {
        self.next(GOAWAY).await;
        let read = soon("the end", self.tls.read(&mut [0])).await;
        assert_eq!(read.expect("a clean end"), 0);
    }

    /// `None` at the end. Answers SETTINGS and PING.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.tls.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.tls.read_exact(&mut payload).await.ok()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload).await,
                SETTINGS | PING => {}
                _ => {
                    let stream = u32::from_be_bytes(stream);
                    return Some(Frame {
                        kind,
                        stream,
                        payload,
                    });
                }
            }
        }
    }
}
