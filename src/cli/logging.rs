//! Log lines on stderr: text for people or JSON, filtered by RUST_LOG or the configuration.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use vestibule::LogFormat;

/// Sets logging up for the rest of the process. RUST_LOG wins over the configuration.
pub(super) fn set_up(filter: Option<&str>, format: LogFormat) -> Result<()> {
    let from_environment = std::env::var("RUST_LOG")
        .ok()
        .filter(|value| !value.is_empty());
    let (origin, filter) = match (&from_environment, filter) {
        (Some(filter), _) => ("RUST_LOG", filter.as_str()),
        (None, Some(filter)) => ("runtime.log", filter),
        (None, None) => ("", "info"),
    };
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .with_context(|| format!("{origin}: {filter:?} is not a log filter such as `info`"))?
        // What was bound, and the limits: scripts read it, so it is not subject to the filter.
        .add_directive("vestibule::start=info".parse().context("a constant directive")?);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Otherwise a line that cannot be written is reported on stderr, with a panic if that is
        // what is gone: a log shipper that dies must not take a worker with it.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init(),
    }
    SET_UP.store(true, Ordering::Relaxed);
    Ok(())
}

pub(super) fn is_set_up() -> bool {
    SET_UP.load(Ordering::Relaxed)
}

static SET_UP: AtomicBool = AtomicBool::new(false);
