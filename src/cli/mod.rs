//! The command line: what can be asked, who answers, and with which exit code.

mod admin;
mod args;
mod check;
mod children;
mod claim;
mod doctor;
mod join;
mod log;
mod logging;
mod run;
mod signals;
mod stderr;
mod top;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use tracing::error;
use vestibule::{ReadError, printable};

use self::args::{Args, Command};

pub(crate) fn main() -> ExitCode {
    let exit = answer();
    stderr::flush();
    exit
}

fn answer() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version, which go to stdout.
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(usage) => {
            let usage = printable::line(&one_line(&usage));
            stderr::last_words(&format_args!("vestibule: {usage}"));
            return Exit::Usage.into();
        }
    };
    let result = match args.command {
        None => run::demo(),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Check(args)) => check::check(&args),
        Some(Command::Claim(args)) => claim::claim(&args),
        Some(Command::Join(args)) => join::join(&args),
        Some(Command::Status(args)) => admin::status(&args),
        Some(Command::Connections(args)) => admin::connections(&args),
        Some(Command::Kill(args)) => admin::kill(&args),
        Some(Command::Revoke(args)) => admin::revoke(&args),
        Some(Command::Drain(target)) => admin::drain(&target),
        Some(Command::Reload(target)) => admin::reload(&target),
        Some(Command::Top(target)) => top::top(&target),
        Some(Command::Doctor(args)) => doctor::doctor(&args),
        Some(Command::Log(args)) => log::log(&args),
        Some(Command::Completions { shell }) => completions(shell),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let said = printable::lines(&failure.to_string());
            if stderr::has_log() {
                // Under the target that no filter hides: it is why the process ends.
                error!(target: stderr::START, "{said}");
            } else if let Some(ReadError::Config(_)) = failure.error.downcast_ref() {
                // Each line begins with its place in the file, as editors expect it.
                stderr::last_words(&said);
            } else {
                stderr::last_words(&format_args!("vestibule: {said}"));
            }
            failure.exit.into()
        }
    }
}

/// clap's message without its usage and its line breaks, and what is meant by common slips.
fn one_line(usage: &clap::Error) -> String {
    let text = usage.to_string();
    let lines = text
        .trim_start_matches("error: ")
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let mut message = String::new();
    for line in lines {
        let separator = match line.strip_prefix("tip: ") {
            _ if message.is_empty() => "",
            Some(_) => "; ",
            None => " ",
        };
        message.push_str(separator);
        message.push_str(line.trim_start_matches("tip: "));
    }
    let hint = hint(usage).map(|hint| format!("; {hint}"));
    let command = std::env::args().nth(1).filter(|word| is_command(word));
    let command = command.map(|command| format!(" {command}"));
    format!(
        "{message}{}; see `vestibule help{}`",
        hint.unwrap_or_default(),
        command.unwrap_or_default()
    )
}

fn is_command(word: &str) -> bool {
    Args::command().find_subcommand(word).is_some()
}

/// What was probably meant by an argument in the wrong place.
fn hint(usage: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(unknown)) = usage.get(ContextKind::InvalidArg) else {
        return None;
    };
    let is_unknown = usage.kind() == ErrorKind::UnknownArgument;
    let command = std::env::args().nth(1).filter(|_| is_unknown)?;
    match command.as_str() {
        "run" | "check" if !unknown.starts_with('-') => {
            Some("give the configuration file with `-c FILE`")
        }
        "claim" if !unknown.starts_with('-') => Some("write the command after `--`"),
        "-c" | "--config" | "--listen" => Some("these arguments belong to `vestibule run`"),
        _ => None,
    }
}

fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vestibule", &mut script);
    match io::stdout().write_all(&script) {
        // It has read as much as it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Clean),
        written => Ok(written
            .context("cannot write to stdout")
            .map(|()| Exit::Clean)?),
    }
}

/// The exit codes; README and `--help` list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Clean = 0,
    Failed = 1,
    Usage = 2,
    Cut = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the command failed, in one line, and the exit code.
#[derive(Debug)]
struct Failure {
    error: anyhow::Error,
    exit: Exit,
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            exit: Exit::Usage,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            exit: Exit::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
