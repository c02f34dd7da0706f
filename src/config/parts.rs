//! The parts of a text that was made from options, which has no lines that anybody knows.

use super::problem::Problem;

/// The name of each part, as in `listener "https"`, and the line in which it starts. Empty for a text that
/// somebody wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(Vec<(usize, Option<String>)>);

impl Parts {
    /// The next part. Without a name, the keys in it say where they are.
    pub(super) fn push(&mut self, line: usize, name: Option<String>) {
        self.0.push((line, name));
    }

    /// The name of the part with this line, if it has one.
    pub(super) fn at(&self, line: usize) -> Option<&str> {
        let behind = self.0.partition_point(|(start, _)| *start <= line);
        let (_, name) = self.0.get(behind.checked_sub(1)?)?;
        name.as_deref()
    }

    /// Puts problems in the order of the text, and says of each in which part it is instead of the line.
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
