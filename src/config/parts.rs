//! The parts of a text that was generated from options. Its line numbers mean nothing to users.

use super::problem::Problem;

/// The name of each part, such as `listener "https"`, with the line where it starts. Empty for a text
/// that a user wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(Vec<(usize, Option<String>)>);

impl Parts {
    /// Adds the next part. In a part without a name, the keys tell where a problem is.
    pub(super) fn push(&mut self, line: usize, name: Option<String>) {
        self.0.push((line, name));
    }

    /// The name of the part that contains this line, if it has one.
    pub(super) fn at(&self, line: usize) -> Option<&str> {
        let behind = self.0.partition_point(|(start, _)| *start <= line);
        let (_, name) = self.0.get(behind.checked_sub(1)?)?;
        name.as_deref()
    }

    /// Sorts problems by their place, and replaces the place by the name of the part.
    pub(super) fn attribute(&self, problems: &mut [Problem]) {
        if self.0.is_empty() {
            return;
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        for problem in problems {
            if let Some(part) = self.at(problem.line) {
                problem.message = format!("{part}: {}", problem.message);
            }
            (problem.line, problem.column) = (0, 0);
        }
    }
}
