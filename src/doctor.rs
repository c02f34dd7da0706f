//! Checks what this machine allows, and says what to change, for `vestibule doctor`.
//!
//! ```text
//! configuration ─► Needs ─┐
//!                         ├─► findings of each check: ok, warn or fail; what; what to do
//! /proc, /sys ─► Machine ─┘
//! ```

mod files;
mod kernel;
mod machine;
mod memory;
mod needs;
#[cfg(test)]
mod tests;

use std::path::Path;

use self::machine::Machine;
use self::needs::Needs;
use crate::config::Config;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check, for example `descriptors`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, with numbers and units.
    pub message: String,
    /// What to do, if there is something.
    pub advice: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something works less well than it could, or will need attention later.
    Warn,
    /// Something will break.
    Fail,
}

impl Level {
    /// `ok`, `warn` or `fail`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            message: message.into(),
            advice: None,
        }
    }

    fn bad(
        check: &'static str,
        level: Level,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }
}

/// Checks this machine for the configuration in `file`, or for the defaults. A check has one finding or
/// several; `certificates` has none without certificates. Blocks on the file system, and on name servers
/// for the hosts of listeners.
pub fn examine(file: Option<&Path>) -> Vec<Finding> {
    examine_on(&Machine::this(), file)
}

fn examine_on(machine: &Machine, file: Option<&Path>) -> Vec<Finding> {
    let (mut findings, config) = configuration(file);
    let needs = Needs::of(config.as_ref());
    findings.extend(kernel::check(machine, &needs));
    findings.push(memory::check(machine, &needs));
    findings.extend(memory::check_budget(machine, &needs));
    findings.extend(files::check(machine, &needs, config.as_ref()));
    findings
}

fn configuration(file: Option<&Path>) -> (Vec<Finding>, Option<Config>) {
    const CHECK: &str = "configuration";
    let Some(file) = file else {
        let message = "no file given: these checks are for the defaults";
        let mut finding = Finding::ok(CHECK, message);
        finding.advice = Some("check yours with `vestibule doctor -c FILE`".into());
        return (vec![finding], None);
    };
    let shown = file.display();
    let config = match Config::from_file(file) {
        Ok(config) => config,
        Err(error) => {
            let problems = error.to_string();
            let mut lines = problems.lines();
            let first = lines.next().unwrap_or_default();
            let message = match lines.count() {
                0 => first.to_owned(),
                more => format!("{first}; and {more} more"),
            };
            let advice = format!(
                "correct it; `vestibule check -c {shown}` prints every problem. The other checks are \
                 for the defaults"
            );
            let finding = Finding::bad(CHECK, Level::Fail, message, advice);
            return (vec![finding], None);
        }
    };
    let mut findings = Vec::new();
    for (problems, level, advice) in [
        (config.unready(), Level::Fail, "a start would stop here"),
        (config.warnings(), Level::Warn, "see docs/configuration.md"),
    ] {
        findings.extend(problems.iter().map(|it| {
            let message = format!("{shown}:{}: {}", it.line, it.message);
            Finding::bad(CHECK, level, message, advice)
        }));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{shown} has no problems")));
    }
    (findings, Some(config))
}
