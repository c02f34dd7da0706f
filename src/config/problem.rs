//! What is wrong with a configuration: where, and what would be right.

use std::fmt;
use std::io;

use super::lines::Place;
use crate::printable;
use crate::watch::FileState;

/// One problem and its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// From 1; 0 in a configuration that was built in code: there the message says where.
    pub line: usize,
    /// From 1, in characters; 0 where `line` is.
    pub column: usize,
    /// What is wrong, and what would be right.
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
/// Displayed as a line a problem: `FILE:LINE:COLUMN: message`, or `configuration: message` if it was built in code.
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

    /// What keeps a configuration that was built in code from being written as a text.
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

    /// The problems; there is at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The files that were read, or were not there to be read, as they were: as
    /// [`Config::files`](crate::Config::files). Once one of them is another it may be worth trying
    /// again.
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

/// What stands for the name of a file where there is none.
pub(super) const UNNAMED: &str = "configuration";
