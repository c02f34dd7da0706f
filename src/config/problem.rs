//! Problems of a configuration: their places, and how to correct them.

use std::fmt;
use std::io;

use super::lines::Place;
use crate::printable;
use crate::watch::FileState;

/// A problem, and its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The line, from 1. 0 in a configuration that was built in code: there the message names the
    /// place.
    pub line: usize,
    /// The column in characters, from 1. 0 if `line` is 0.
    pub column: usize,
    /// What is wrong, and how to correct it.
    pub message: String,
}

impl Problem {
    pub(super) fn at(place: Place, message: &str) -> Self {
        let Place { line, column } = place;
        Self {
            line,
            column,
            message: printable::line(message),
        }
    }
}

/// Every problem of one configuration, in the order of the text.
///
/// Displayed as one line for each problem: `FILE:LINE:COLUMN: message`, or `configuration: message` if
/// it was built in code.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    file: String,
    problems: Vec<Problem>,
    files: Vec<FileState>,
}

impl ConfigError {
    pub(super) fn new(
        file: &dyn fmt::Display,
        mut problems: Vec<Problem>,
        files: Vec<FileState>,
    ) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self {
            file: file.to_string(),
            problems,
            files,
        }
    }

    /// Options of a configuration in code that cannot be written as text.
    pub(super) fn unwritable(messages: &[String]) -> Self {
        let nowhere = Place { line: 0, column: 0 };
        let problems = messages.iter().map(|it| Problem::at(nowhere, it));
        Self::new(&UNNAMED, problems.collect(), Vec::new())
    }

    pub(super) fn unreadable(
        file: &dyn fmt::Display,
        error: &io::Error,
        itself: FileState,
    ) -> Self {
        let message = format!("cannot read the configuration: {error}");
        let problem = Problem::at(Place::START, &message);
        Self::new(file, vec![problem], vec![itself])
    }

    /// The problems. There is at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The files that were read, or that are missing, in their state at that time; as
    /// [`Config::files`](crate::Config::files). When one of them changes, another attempt may succeed.
    pub fn files(&self) -> &[FileState] {
        &self.files
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            index,
            Problem {
                line,
                column,
                message,
            },
        ) in self.problems.iter().enumerate()
        {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:", self.file)?;
            if *line > 0 {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {message}")?;
        }
        Ok(())
    }
}

/// Used instead of a file name.
pub(super) const UNNAMED: &str = "configuration";
