//! The text of a configuration, and what is found while it is read.

use std::cell::RefCell;

use super::lines::Lines;
use super::parts::Parts;
use super::problem::Problem;
use super::unready::{Host, Unready};

/// The text, and what was found in it.
pub(super) struct Document<'a> {
    lines: Lines<'a>,
    parts: Parts,
    findings: RefCell<Findings>,
}

/// The results of a check.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    /// Problems that need attention later.
    pub warnings: Vec<Problem>,
    /// Certificates and lists that are no longer valid.
    pub expired: Vec<Problem>,
    /// Conditions that would keep a start from binding an address now.
    pub unready: Unready,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self::of_parts(text, Parts::default())
    }

    /// A text that was generated from options. Problems are reported with the names of its parts, and
    /// without line numbers.
    pub(super) fn of_parts(text: &'a str, parts: Parts) -> Self {
        Self {
            lines: Lines::of(text),
            parts,
            findings: RefCell::default(),
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.lines.text()
    }

    /// Names a table at a place in the text. `kind` is, for example, `route`.
    pub(super) fn which(&self, kind: &str, offset: usize) -> String {
        let line = self.lines.place(offset).line;
        let of_line = || format!("the {kind} in line {line}");
        self.parts.at(line).map_or_else(of_line, str::to_owned)
    }

    pub(super) fn problem(&self, offset: usize, message: String) {
        let problem = self.found_at(offset, &message);
        self.findings.borrow_mut().problems.push(problem);
    }

    pub(super) fn warn(&self, offset: usize, message: String) {
        let warning = self.found_at(offset, &message);
        self.findings.borrow_mut().warnings.push(warning);
    }

    pub(super) fn expired(&self, offset: usize, message: String) {
        let expired = self.found_at(offset, &message);
        self.findings.borrow_mut().expired.push(expired);
    }

    pub(super) fn unready(&self, offset: usize, message: String) {
        let unready = self.found_at(offset, &message);
        self.findings.borrow_mut().unready.found.push(unready);
    }

    /// Records the host where a listener will bind.
    pub(super) fn bound(&self, offset: usize, host: &str) {
        let place = self.lines.place(offset);
        let host = host.to_owned();
        self.findings
            .borrow_mut()
            .unready
            .hosts
            .push(Host { host, place });
    }

    fn found_at(&self, offset: usize, message: &str) -> Problem {
        Problem::at(self.lines.place(offset), message)
    }

    pub(super) fn into_findings(self) -> Findings {
        let mut findings = self.findings.into_inner();
        let Findings {
            problems,
            warnings,
            expired,
            unready,
        } = &mut findings;
        for found in [problems, warnings, expired] {
            self.parts.attribute(found);
        }
        unready.parts = self.parts;
        findings
    }
}
