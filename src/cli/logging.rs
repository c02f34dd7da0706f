//! Log lines on stderr: text for people or JSON, filtered by RUST_LOG or the configuration.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use vestibule::{LogFormat, log_filter};

use super::stderr::{self, LOG_HEALTH, PANIC, START, Stderr};

/// Sets logging up for the rest of the process. RUST_LOG wins over the configuration.
pub(super) fn set_up(filter: Option<&str>, format: LogFormat) -> Result<()> {
    let filter = match from_environment()? {
        Some(filter) => filter,
        // It was validated with the configuration.
        None => parse(filter.unwrap_or_default()).context("runtime.log")?,
    };
    let filter = filter
        .add_directive(directive(START, "info")?)
        .add_directive(directive(LOG_HEALTH, "warn")?)
        .add_directive(directive(PANIC, "error")?);
    stderr::start().context("cannot start the thread that writes the log")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_ansi(is_colourful())
        // They would be written to stderr, past the queue.
        .log_internal_errors(false);
    match format {
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init(),
        _ => subscriber.init(),
    }
    stderr::log_starts();
    Ok(())
}

/// The filter in RUST_LOG, if there is one.
fn from_environment() -> Result<Option<EnvFilter>> {
    let Some(text) = std::env::var_os("RUST_LOG").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.to_str().map(parse) {
        Some(Ok(filter)) => Ok(Some(filter)),
        Some(Err(_)) | None => bail!(
            "RUST_LOG: {text:?} is not a log filter; write one such as `info` or \
             `info,vestibule=debug`; the levels are off, error, warn, info, debug and trace"
        ),
    }
}

fn parse(filter: &str) -> Result<EnvFilter> {
    let complete = log_filter::complete(filter).context("not a log filter")?;
    Ok(EnvFilter::builder().parse(complete)?)
}

fn directive(target: &str, level: &str) -> Result<Directive> {
    let directive = format!("{target}={level}");
    directive.parse().context("a constant directive")
}

/// <https://no-color.org>: set and not empty. A dumb terminal shows escape sequences as they are.
fn is_colourful() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}
