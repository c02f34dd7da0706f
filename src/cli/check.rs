//! `vestibule check`: every problem of a configuration file, one a line.

use std::io::{Write, stdout};

use anyhow::Context;
use vestibule::Config;

use super::args::CheckArgs;
use super::{Exit, Failure};

pub(super) fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let (report, exit) = match Config::from_file(&args.config) {
        Ok(_) => (
            format!("{}: no problems", args.config.display()),
            Exit::Clean,
        ),
        Err(problems) => (problems.to_string(), Exit::Usage),
    };
    writeln!(stdout(), "{report}").context("cannot write to stdout")?;
    Ok(exit)
}
