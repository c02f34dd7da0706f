//! Tunnels: many connections in one, each a CONNECT stream of HTTP/2 (RFC 9113 §8.5).
//!
//! ```text
//! a peer's tunnel ─► Carried ─ next ─► Opening: host and port ─► TunnelStream ─► 200, bytes both ways
//!                                                             └► a refusal: 4xx, 5xx
//! our own tunnel ─► Originated ─ open ─► Answer ─► TunnelStream
//! ```
//!
//! The HTTP/2 layer is the h2 crate's. It runs where the carrier is polled; streams of the carrier only exchange
//! bytes with it, on the same thread.

mod backlog;
mod budget;
mod carried;
mod flows;
mod gathered;
mod heartbeat;
mod originated;
mod payload;
mod stream;
#[cfg(test)]
mod tests;
mod windows;
mod worker;

pub(crate) use hyper::StatusCode;

pub(crate) use self::budget::WindowBudget;
pub(crate) use self::carried::{Carried, CarrierError, Opened, Opening};
pub(crate) use self::originated::{Answer, Driver, Notice, OpenError, Originated};
pub(crate) use self::stream::TunnelStream;
pub(crate) use self::worker::{WatchStream, WorkerRequest};

/// `[listener.tunnel]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunnelSettings {
    /// The protocol (ALPN) by which clients say that they bring a tunnel.
    pub alpn: String,
    /// The number of streams that may be open on a tunnel at a time.
    pub streams: u32,
    /// Whether workers may come through tunnels.
    pub workers: bool,
}

/// What the peer may send on a stream before we have taken anything of it. With the 64 KiB that the relay has
/// taken, a stream that nobody reads costs 256 KiB of memory, and it delays no other. [`windows`] lets it grow.
const STREAM_WINDOW: u32 = 192 * 1024;

/// What all streams of a tunnel together may have on their way. Streams that nobody reads must not use it up: it
/// is as large as the windows of all streams, but not larger than HTTP/2 allows.
fn carrier_window(streams: u32) -> u32 {
    streams
        .saturating_add(1)
        .saturating_mul(STREAM_WINDOW)
        .min(MOST_WINDOW)
}

/// RFC 9113 §6.9.1.
const MOST_WINDOW: u32 = (1 << 31) - 1;
/// The sum of the names and values of the fields of a request (RFC 9113 §10.5.1).
const MOST_FIELDS: u32 = 16 * 1024;
/// What is taken from a backend and not sent yet, for each stream. The write that exceeds it is taken whole, so it may
/// become 160 KiB.
const MOST_UNSENT: usize = 96 * 1024;
/// The cost of small frames of data that h2 holds because no stream has taken them yet: of each one what it lacks of
/// 256 bytes. A peer above this gets GOAWAY. Database drivers send frames of 20 bytes: a turn of the tunnel brings
/// 9,000 of them (2 MiB here), and streams that wait for a backend may hold 9,000 more each. These are 40,000 frames
/// of one byte at most, whose memory is many times their bytes.
const SMALL_FRAMES: usize = 40_000 * 256;
/// Streams that the peer has opened and reset before we have looked at them (CVE-2023-44487).
const MOST_RESET_EARLY: usize = 20;
/// Streams that we have reset lately, for which frames are ignored without an answer: they were on their way.
const MOST_RESETS: usize = 256;
/// Errors of the peer in single streams, after which the tunnel ends.
const MOST_ERRORS: usize = 1024;
