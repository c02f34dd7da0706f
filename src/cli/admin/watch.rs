//! `vestibule connections --watch`: the table again and again, also over restarts of the server.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use humantime::format_rfc3339_seconds;
use ratatui::crossterm::terminal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::{MissedTickBehavior, interval};
use vestibule::printable;

use super::client::{Api, ApiError};
use super::{List, list, show};
use crate::cli::args::ConnectionsArgs;
use crate::cli::signals::End;
use crate::cli::{Exit, Failure, stderr};

/// Returns when it is asked to end, or when nobody reads stdout any more.
///
/// # Errors
///
/// Nobody answers at the beginning, or the server refuses the query. A server that is lost later is
/// waited for.
pub(super) async fn watch(
    api: &Api,
    args: &ConnectionsArgs,
    every: Duration,
) -> Result<Exit, Failure> {
    let mut end = End::new().context("cannot listen for signals")?;
    let mut painter = Painter::new(args.json, every);
    let mut ticks = interval(every);
    // A slow server gets its rest.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let repeat = async {
        ticks.tick().await;
        let mut shown = list(api, args).await?;
        let mut lost = None;
        loop {
            let now = SystemTime::now();
            let text = painter.text(&shown, lost.as_ref(), now);
            match write(&text).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Clean),
                written => written.context("cannot write to stdout")?,
            }
            ticks.tick().await;
            match list(api, args).await {
                Ok(list) => (shown, lost) = (list, None),
                Err(ApiError::Refused(message)) => return Err(ApiError::Refused(message).into()),
                Err(error) => lost = Some(error),
            }
        }
    };
    let done = tokio::select! {
        biased;
        _ = end.asked() => Ok(Exit::Clean),
        done = repeat => done,
    };
    painter.leave().await;
    done
}

/// On a thread of its own: a reader that has stopped must not keep Ctrl-C from being heard.
async fn write(text: &str) -> io::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(text.as_bytes()).await?;
    out.flush().await
}

/// What a list looks like on this stdout.
struct Painter {
    form: Form,
    every: Duration,
    /// Whether the loss of the server was said.
    is_lost: bool,
    /// Whether a table is on the screen.
    is_painted: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// A table that is painted over the last one.
    Screen,
    /// A table below the last one.
    Tables,
    /// One document on each line.
    Json,
}

impl Painter {
    fn new(is_json: bool, every: Duration) -> Self {
        let form = match is_json {
            true => Form::Json,
            false if io::stdout().is_terminal() => Form::Screen,
            false => Form::Tables,
        };
        Self {
            form,
            every,
            is_lost: false,
            is_painted: false,
        }
    }

    /// What to write. `lost` is why there is no newer list.
    fn text(&mut self, list: &List, lost: Option<&ApiError>, now: SystemTime) -> String {
        let time = format_rfc3339_seconds(now).to_string();
        match self.form {
            Form::Json => line(list, lost, &time),
            Form::Tables => {
                self.say(lost);
                match lost {
                    Some(_) => String::new(),
                    None => table(&head(list, &time, self.every), list),
                }
            }
            Form::Screen => {
                let head = match lost {
                    None => head(list, &time, self.every),
                    Some(error) => {
                        let error = printable::line(&error.to_string());
                        format!("{time}  LOST, trying again: {error}")
                    }
                };
                let (_, height) = terminal::size().unwrap_or((80, 24));
                let height = usize::from(height);
                // What was on the screen before goes up, where it can be scrolled to.
                let room = match std::mem::replace(&mut self.is_painted, true) {
                    true => String::new(),
                    false => "\n".repeat(height),
                };
                room + &screen(&table(&head, list), height)
            }
        }
    }

    /// Says on stderr that the server is lost, and that it is back, once each.
    fn say(&mut self, lost: Option<&ApiError>) {
        match lost {
            Some(error) if !self.is_lost => {
                let error = printable::line(&error.to_string());
                stderr::last_words(&format_args!("vestibule: {error}; trying again"));
            }
            None if self.is_lost => stderr::last_words(&"vestibule: the server answers again"),
            _ => {}
        }
        self.is_lost = lost.is_some();
    }

    /// Puts the prompt of the shell below the table.
    async fn leave(&self) {
        if self.form == Form::Screen {
            // The terminal may be what has ended.
            let _ = write("\n").await;
        }
    }
}

fn line(list: &List, lost: Option<&ApiError>, time: &str) -> String {
    let document = match lost {
        None => json!({"time": time, "total": list.total, "connections": list.rows}),
        Some(error) => json!({"time": time, "error": error.to_string()}),
    };
    format!("{document}\n")
}

fn head(list: &List, time: &str, every: Duration) -> String {
    let shown = list.rows.len() as u64;
    let count = match list.total {
        total if total > shown => format!("{shown} of {total}"),
        total => total.to_string(),
    };
    format!("{time}  connections: {count}  every {} s", every.as_secs())
}

fn table(head: &str, list: &List) -> String {
    let rows: &[Value] = &list.rows;
    format!("{head}\n{}\n", show::connections(rows))
}

/// Paints over what is there, line by line and without clearing first, so that nothing flickers. Lines
/// that are too long are cut by the terminal, which knows how wide characters are.
fn screen(text: &str, height: usize) -> String {
    let mut painted = String::from("\x1b[?7l\x1b[H");
    let most = height.saturating_sub(1).max(1);
    for (index, line) in text.trim_end().lines().take(most).enumerate() {
        let between = if index == 0 { "" } else { "\r\n" };
        let _ = write!(painted, "{between}{line}\x1b[K");
    }
    painted.push_str("\x1b[J\x1b[?7h");
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_has_at_most_the_lines_of_the_terminal() {
        let painted = screen("a\nb\nc\nd\n", 3);
        assert_eq!(painted, "\x1b[?7l\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J\x1b[?7h");
    }

    #[test]
    fn a_line_of_json_is_one_line_also_when_the_server_is_lost() {
        let list = List {
            rows: vec![json!({"tls": {"sni": "a\nb"}})],
            total: 7,
        };
        let lost = ApiError::Refused("a\nb".into());
        for lost in [None, Some(&lost)] {
            let text = line(&list, lost, "2026-11-20T20:00:00Z");
            assert_eq!(text.lines().count(), 1, "{text}");
            let document: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(document["error"].is_string(), lost.is_some());
            assert_eq!(document["total"] == 7, lost.is_none());
        }
    }
}
