//! Log lines on stderr: text for people or JSON, filtered by RUST_LOG or the configuration.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::reload::Handle;
use vestibule::{LogFormat, log_filter};

use super::stderr::{self, LOG_HEALTH, PANIC, START, Stderr};

/// Changes the filter while the process runs.
pub(super) struct Logging {
    /// The filter at the start: RUST_LOG, or else the configuration.
    pub configured: String,
    /// Applies a filter, or the configured one. Returns false if it cannot be read.
    pub change: Box<Change>,
}

type Change = dyn Fn(Option<&str>) -> bool + Send + Sync;

/// Sets logging up for the rest of the process. RUST_LOG wins over the configuration.
pub(super) fn set_up(filter: Option<&str>, format: LogFormat) -> Result<Logging> {
    let configured = match from_environment()? {
        Some(filter) => filter,
        None => filter.unwrap_or("info").to_owned(),
    };
    // That of the configuration was validated with it.
    let filter = with_ours(&configured).context("runtime.log")?;
    stderr::start().context("cannot start the thread that writes the log")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_ansi(is_colourful())
        // They would be written to stderr, past the queue.
        .log_internal_errors(false);
    let change = match format {
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_span_list(false);
            let subscriber = subscriber.with_filter_reloading();
            let change = changes(&configured, subscriber.reload_handle());
            subscriber.init();
            change
        }
        _ => {
            let subscriber = subscriber.with_filter_reloading();
            let change = changes(&configured, subscriber.reload_handle());
            subscriber.init();
            change
        }
    };
    stderr::log_starts();
    Ok(Logging { configured, change })
}

fn changes<S: 'static>(configured: &str, handle: Handle<EnvFilter, S>) -> Box<Change> {
    let configured = configured.to_owned();
    Box::new(move |filter| {
        let filter = with_ours(filter.unwrap_or(&configured));
        filter.is_ok_and(|filter| handle.reload(filter).is_ok())
    })
}

/// With the lines that no filter hides.
fn with_ours(filter: &str) -> Result<EnvFilter> {
    Ok(parse(filter)?
        .add_directive(directive(START, "info")?)
        .add_directive(directive(LOG_HEALTH, "warn")?)
        .add_directive(directive(PANIC, "error")?))
}

/// The filter in RUST_LOG, if there is one.
fn from_environment() -> Result<Option<String>> {
    let Some(text) = std::env::var_os("RUST_LOG").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.to_str().filter(|text| parse(text).is_ok()) {
        Some(filter) => Ok(Some(filter.to_owned())),
        None => bail!(
            "RUST_LOG: {text:?} is not a log filter; write one such as `info` or \
             `info,vestibule=debug`; the levels are off, error, warn, info, debug and trace"
        ),
    }
}

fn parse(filter: &str) -> Result<EnvFilter> {
    let complete = log_filter::complete(filter).context("not a log filter")?;
    // As an expression, a value of a hundred bytes can take all memory and minutes.
    Ok(EnvFilter::builder().with_regex(false).parse(complete)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(filter: &str) -> String {
        parse(filter).expect(filter).to_string()
    }

    #[test]
    fn spaces_around_directives_mean_nothing() {
        for filter in [
            "warn, debug",
            "warn,\tvestibule::gate=debug",
            " vestibule[connection]=debug ",
            "debug, [connection\u{e9}]=trace",
        ] {
            assert_eq!(shown(filter), shown(&filter.replace([' ', '\t'], "")));
        }
    }

    #[test]
    fn the_value_of_a_field_is_text_and_no_expression() {
        assert!(parse("[connection{peer=(}]=trace").is_ok());
    }
}
