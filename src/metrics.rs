//! The counters and histograms of a proxy, and the text that a scrape gets.
//!
//! ```text
//! a connection's end, a handshake, a wait ─► handles of its listener and backend ─┐
//! open connections, limits, health: read at the scrape (proxy::scrape) ───────────┴─► text
//! ```
//!
//! A connection looks up its handles when a stage of it ends, and never for a byte. Labels are names
//! from the configuration and words from closed lists, so their number is bounded.

mod busy;
mod format;
mod handles;
mod help;
mod label;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub(crate) use self::busy::Workers;
pub use self::format::MetricsFormat;
pub(crate) use self::handles::{BackendMetrics, ListenerMetrics};
use self::handles::{Counts, Handles};
pub(crate) use self::help::register;
pub(crate) use self::label::{Label, Text};
use crate::facts::TlsFacts;

/// What a proxy counts from its start on.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    counts: Counts,
    handshakes: Family<[Label; 6], Counter>,
    handshake_seconds: Family<[Label; 3], Histogram>,
    reloads: Family<[Label; 1], Counter>,
    listeners: Handles<ListenerMetrics>,
    backends: Handles<BackendMetrics>,
    /// Clients of the gate that watch, and were dropped because they read too slowly.
    pub dropped_watchers: Counter,
    pub workers: Workers,
}

/// A handshake that has ended, with whatever is known of it.
#[derive(Debug)]
pub(crate) struct Handshake<'a> {
    pub listener: &'a Arc<str>,
    /// `None` if it failed.
    pub tls: Option<&'a TlsFacts>,
    /// `ok`, or why it failed.
    pub result: &'static str,
    pub took: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let counts = Counts::register(&mut registry);
        let handshakes = Family::default();
        let handshake_seconds =
            Family::new_with_constructor(handshake_seconds as fn() -> Histogram);
        let reloads = Family::default();
        register(&mut registry, "handshakes", Family::clone(&handshakes));
        let seconds = Family::clone(&handshake_seconds);
        register(&mut registry, "handshake_seconds", seconds);
        register(&mut registry, "reloads", Family::clone(&reloads));
        for result in ["ok", "failed"] {
            drop(reloads.get_or_create(&[("result", result.into())]));
        }
        Self {
            registry,
            counts,
            handshakes,
            handshake_seconds,
            reloads,
            listeners: Handles::default(),
            backends: Handles::default(),
            dropped_watchers: Counter::default(),
            workers: Workers::default(),
        }
    }
}

impl Metrics {
    /// The handles of a listener, made at the first call for it.
    pub(crate) fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let make = |name: &Arc<str>| ListenerMetrics::new(name, &self.counts);
        self.listeners.get(name, make)
    }

    /// The handles of a backend, made at the first call for it.
    pub(crate) fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        let make = |name: &Arc<str>| BackendMetrics::new(name, &self.counts);
        self.backends.get(name, make)
    }

    /// The listeners that have or had connections.
    pub(crate) fn listeners(&self) -> Vec<(Arc<str>, Arc<ListenerMetrics>)> {
        self.listeners.all()
    }

    /// Counts a handshake that has ended.
    pub(crate) fn shaken(&self, handshake: &Handshake<'_>) {
        let Handshake {
            listener,
            tls,
            result,
            took,
        } = *handshake;
        let word = |word: Option<&'static str>| Text::from(word.unwrap_or(UNKNOWN));
        let version = word(tls.map(|tls| tls.version));
        let resumed = word(tls.map(|tls| match tls.resumed {
            true => "true",
            false => "false",
        }));
        let labels = [
            ("listener", listener.into()),
            ("version", version.clone()),
            ("cipher", word(tls.and_then(|tls| tls.cipher))),
            ("group", word(tls.and_then(|tls| tls.group))),
            ("resumed", resumed.clone()),
            ("result", result.into()),
        ];
        self.handshakes.get_or_create(&labels).inc();
        if tls.is_some() {
            let labels = [
                ("listener", listener.into()),
                ("version", version),
                ("resumed", resumed),
            ];
            let seconds = self.handshake_seconds.get_or_create(&labels);
            seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a reload: applied, or without effect because of an error.
    pub(crate) fn reloaded<T, E>(&self, result: &Result<T, E>) {
        let result = match result {
            Ok(_) => "ok",
            Err(_) => "failed",
        };
        self.reloads
            .get_or_create(&[("result", result.into())])
            .inc();
    }

    /// The text for a scrape: all of these metrics, and those in `gauges`.
    pub(crate) fn text(&self, gauges: &Registry, format: MetricsFormat) -> String {
        format::text(&[&self.registry, gauges], format)
    }
}

/// The value of a label for a fact that is not known, for example the version of a handshake that
/// failed.
const UNKNOWN: &str = "unknown";

/// The first word of every metric.
pub(crate) const PREFIX: &str = "vestibule";

/// From a resumption on a fast machine to the default of `timeouts.handshake`.
fn handshake_seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

#[cfg(test)]
mod tests;
