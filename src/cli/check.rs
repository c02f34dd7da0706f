//! `vestibule check`: prints every problem of a configuration file, one for each line, or a summary of
//! the configuration.

use std::fmt::Write as _;
use std::io::{Write, stdout};

use anyhow::Context;
use vestibule::{Config, Problem, Question};

use super::args::CheckArgs;
use super::{Exit, Failure};

pub(super) fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let (text, exit) = match Config::from_file(&args.config) {
        Ok(config) => match [config.expired(), config.unready()].concat() {
            problems if problems.is_empty() => (report(args, &config)?, Exit::Clean),
            problems => (lines(args, "", &problems), Exit::Usage),
        },
        Err(problems) => (format!("{problems}\n"), Exit::Usage),
    };
    write!(stdout(), "{text}").context("cannot write to stdout")?;
    Ok(exit)
}

fn report(args: &CheckArgs, config: &Config) -> Result<String, Failure> {
    let warnings = lines(args, "warning: ", config.warnings());
    if !args.explain {
        let file = args.config.display();
        return Ok(format!(
            "{file}: no problems\n{warnings}{}",
            config.summary()
        ));
    }
    let question = Question {
        listener: args.listener.clone(),
        sni: args.sni.clone(),
        alpn: args.alpn.clone(),
        from: args.from,
        identity: args.identity.clone(),
    };
    config.explain(&question).map_err(Failure::usage)
}

fn lines(args: &CheckArgs, label: &str, problems: &[Problem]) -> String {
    let file = args.config.display();
    problems.iter().fold(String::new(), |mut lines, problem| {
        let Problem {
            line,
            column,
            message,
            ..
        } = problem;
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{file}:{line}:{column}: {label}{message}");
        lines
    })
}
