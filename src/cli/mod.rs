//! The command line: what can be asked, who answers, and with which exit code.

mod args;
mod check;
mod claim;
mod logging;
mod run;

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing::error;

use self::args::{Args, Command};

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // clap prints help and version to stdout with 0, and usage errors to stderr with 2.
        Err(usage) => usage.exit(),
    };
    let result = match args.command {
        None => run::demo(),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Check(args)) => check::check(&args),
        Some(Command::Claim(args)) => claim::claim(&args),
        Some(Command::Completions { shell }) => {
            let mut command = Args::command();
            clap_complete::generate(shell, &mut command, "vestibule", &mut io::stdout());
            Ok(Exit::Clean)
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if logging::is_set_up() {
                // Under the target that no filter hides: it is why the process ends.
                error!(target: "vestibule::start", "{failure}");
            } else {
                eprintln!("vestibule: {failure}");
            }
            failure.exit.into()
        }
    }
}

/// The exit codes of the contract.
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

/// What ended the command, in one line, and the code to exit with.
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
