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

mod carried;
mod heartbeat;
mod originated;
mod stream;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use hyper::StatusCode;

pub(crate) use self::carried::{Carried, CarrierError, Opened, Opening};
pub(crate) use self::originated::{Answer, Driver, OpenError, Originated};
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
/// taken, a stream that nobody reads costs 256 KiB of memory, and it delays no other.
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
/// What is taken from a backend and not sent yet, for each stream.
const MOST_UNSENT: usize = 64 * 1024;
/// Streams that the peer has opened and reset before we have looked at them (CVE-2023-44487).
const MOST_RESET_EARLY: usize = 20;
/// Errors of the peer in single streams, after which the tunnel ends.
const MOST_ERRORS: usize = 1024;
