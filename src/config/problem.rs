//! What is wrong with a configuration: where, and what would be right.

use std::fmt;
use std::io;

use super::lines::Place;
use crate::watch::FileState;

/// One problem and its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
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
            message: printable(message),
        }
    }
}

/// Keys, paths and names in certificates may hold line breaks, escape sequences and what turns the
/// direction of a text; what is printed is one line on a terminal.
pub(super) fn printable(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() || is_format(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Unseen, and changes what is seen: separators, marks and embeddings of a direction.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Every problem of one configuration, in the order of the text.
///
/// Displayed as a line a problem: `FILE:LINE:COLUMN: message`.
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
            write!(f, "{separator}{}:{line}:{column}: {message}", self.file)?;
        }
        Ok(())
    }
}
