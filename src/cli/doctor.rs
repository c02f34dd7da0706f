//! `vestibule doctor`: prints what this machine allows, and what to change.

use std::fmt::Write as _;
use std::io::{Write, stdout};

use anyhow::Context;
use serde_json::json;
use vestibule::doctor::{Finding, Level, examine};
use vestibule::printable;

use super::args::DoctorArgs;
use super::{Exit, Failure};

pub(super) fn doctor(args: &DoctorArgs) -> Result<Exit, Failure> {
    let findings = examine(args.config.as_deref());
    let text = match args.json {
        true => as_json(&findings),
        false => as_lines(&findings),
    };
    writeln!(stdout(), "{text}").context("cannot write to stdout")?;
    Ok(match number(&findings, Level::Fail) {
        0 => Exit::Clean,
        _ => Exit::Failed,
    })
}

fn number(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|it| it.level == level).count()
}

fn as_json(findings: &[Finding]) -> String {
    let checks = findings.iter().map(|it| {
        json!({
            "check": it.check,
            "level": it.level.as_str(),
            "message": it.message,
            "advice": it.advice,
        })
    });
    json!({
        "checks": checks.collect::<Vec<_>>(),
        "ok": number(findings, Level::Ok),
        "warn": number(findings, Level::Warn),
        "fail": number(findings, Level::Fail),
    })
    .to_string()
}

fn as_lines(findings: &[Finding]) -> String {
    let widest = findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
    let mut lines = String::new();
    for finding in findings {
        let (level, check) = (finding.level.as_str(), finding.check);
        let message = printable::line(&finding.message);
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{level:<4}  {check:<widest$}  {message}");
        if let Some(advice) = &finding.advice {
            let advice = printable::line(advice);
            let _ = writeln!(lines, "{:<4}  {:<widest$}  -> {advice}", "", "");
        }
    }
    let (warn, fail) = (number(findings, Level::Warn), number(findings, Level::Fail));
    let end = match (fail, warn) {
        (0, 0) => "all is well".into(),
        (0, warn) => format!("nothing will break; to look at: {warn}"),
        (fail, warn) => format!("will break: {fail}; to look at: {warn}"),
    };
    lines + &end
}
