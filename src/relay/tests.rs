//! What both relays promise, over streams that do all that a socket may do to them.
//!
//! ```text
//! Far ── TLS or none ── habits ─► Near ◄── relay ──► habits ◄── DuplexStream
//! ```
//!
//! A habit is below the TLS: what it does to records shows in how the client's bytes come.

mod bytes;
mod ends;
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

/// Ends for no lack of bytes.
pub(super) const PATIENT: InactivityTimeouts = InactivityTimeouts {
    idle: None,
    half_close: None,
    unacknowledged: None,
};

/// Room for everything that a small test says.
pub(super) const ROOM: usize = 4096;

/// Closes both streams when it ends, as the owner of a relay does.
async fn relay(mut client: Near, mut backend: impl Stream, settings: InactivityTimeouts) -> End {
    let traffic = Traffic::default();
    let relay = Relay {
        settings: &settings,
        traffic: &traffic,
    };
    client.join(&mut backend, relay).await
}

/// What has not come after a day in which nothing else could happen will never come.
pub(super) async fn come<F: Future>(work: F) -> F::Output {
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(work).await.expect("it hangs")
}

/// Bytes of which no two stretches are alike, so that a lost or repeated one shows.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}

/// Says something in one piece, and keeps none of it back.
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

/// For tests that run one many times.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}
