//! The promises of all relays, over streams with every behaviour that sockets may have.
//!
//! ```text
//! Far ── TLS or none ── habits ─► Near ◄── relay ──► habits ◄── DuplexStream
//! ```
//!
//! A habit is below TLS: it affects records, and so the way in which the client's bytes arrive.

mod bytes;
mod ends;
mod lending;
pub(super) mod over;
mod programs;
mod quiet;
mod streams;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use self::over::{ALL, Near, Over};
use self::streams::Stream;
use super::*;
use crate::deadline::Deadline;

/// Without time limits.
pub(super) const PATIENT: InactivityTimeouts = InactivityTimeouts {
    idle: None,
    half_close: None,
    unacknowledged: None,
};

/// Room for everything that a small test sends.
pub(super) const ROOM: usize = 4096;

/// Runs a relay, and closes both streams at its end, as its owner does.
async fn relay(mut client: Near, mut backend: impl Stream, settings: InactivityTimeouts) -> End {
    let traffic = Traffic::default();
    let relay = Relay {
        settings: &settings,
        traffic: &traffic,
    };
    client.join(&mut backend, relay).await
}

/// Fails after a day of paused time: what has not happened by then will never happen.
pub(super) async fn come<F: Future>(work: F) -> F::Output {
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(work).await.expect("it hangs")
}

/// Bytes without a repetition, so that lost or repeated ones are noticed.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}

/// Sends something in one piece, and flushes it.
async fn say(stream: &mut impl Stream, words: &[u8]) {
    stream.write_all(words).await.expect("a reader");
    stream.flush().await.expect("a reader");
}

/// Sends `ours` and closes, and reads to the end meanwhile.
async fn talk(stream: impl Stream, ours: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut theirs = Vec::new();
    let send = async {
        writer.write_all(ours).await.expect("a relay that takes it");
        writer.shutdown().await.expect("a relay that takes the end");
    };
    let ((), read) = tokio::join!(send, reader.read_to_end(&mut theirs));
    read.expect("an end");
    theirs
}

/// For tests that run a relay many times.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}
