//! docs/operate.md: its commands, and the output that it shows for them.

use std::fs;

use crate::common::project;

/// A part of the page with a heading, and its blocks of commands.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Vec<Step>>,
}

/// A command, and the lines that it should print. `…` in a line stands for any text, and a line with it
/// alone for any lines.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
}

/// The sections of the page that have commands.
pub(crate) fn sections() -> Vec<Section> {
    let page = fs::read_to_string(project("docs/operate.md")).expect("the page");
    let mut sections: Vec<Section> = Vec::new();
    let mut is_block = false;
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ").filter(|_| !is_block) {
            let (title, blocks) = (title.to_owned(), Vec::new());
            sections.push(Section { title, blocks });
            continue;
        }
        if line.starts_with("```") {
            is_block = line == "```console";
            let section = sections.last_mut().filter(|_| is_block);
            section
                .into_iter()
                .for_each(|it| it.blocks.push(Vec::new()));
            continue;
        }
        let block = sections.last_mut().and_then(|it| it.blocks.last_mut());
        match (is_block, line.strip_prefix("$ "), block) {
            (true, Some(command), Some(block)) => block.push(Step {
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (true, None, Some(block)) => {
                let step = block.last_mut().expect("a block begins with a command");
                step.output.push(line.to_owned());
            }
            _ => {}
        }
    }
    sections.retain(|it| !it.blocks.is_empty());
    sections
}

impl Step {
    /// # Errors
    ///
    /// The output is not what the page shows.
    pub(crate) fn check(&self, output: &str) -> Result<(), String> {
        let mut rest = output.lines();
        let mut may_skip = false;
        for expected in &self.output {
            if expected.trim() == "…" {
                may_skip = true;
                continue;
            }
            let found = match may_skip {
                true => rest.any(|line| matches(expected, line)),
                false => rest.next().is_some_and(|line| matches(expected, line)),
            };
            if !found {
                return Err(format!(
                    "`{}` does not print\n{expected}\nas docs/operate.md says; it prints\n{output}",
                    self.command
                ));
            }
            may_skip = false;
        }
        let rest: Vec<&str> = rest.collect();
        match may_skip || rest.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "`{}` prints more than docs/operate.md says: {rest:#?}",
                self.command
            )),
        }
    }
}

/// Whether a line is as expected, apart from what differs each time.
fn matches(expected: &str, line: &str) -> bool {
    let (expected, line) = (constant(expected), constant(line));
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        match parts.peek() {
            None => return rest.ends_with(part),
            Some(_) => match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            },
        }
    }
    true
}

/// The text without the width of columns, and with a sign for each time, id, address, size and large number.
fn constant(text: &str) -> String {
    let mut shown = String::new();
    let words = text.split_whitespace();
    for word in words {
        if !shown.is_empty() {
            shown.push(' ');
        }
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let (length, sign) = volatile(rest, shown.ends_with(|c: char| c.is_alphanumeric()));
            match length {
                0 => {
                    shown.push(first);
                    rest = &rest[first.len_utf8()..];
                }
                length => {
                    shown.push_str(sign);
                    rest = &rest[length..];
                }
            }
        }
    }
    shown
}

/// The length of what stands at the beginning and differs each time, and a sign for it.
fn volatile(text: &str, is_in_word: bool) -> (usize, &'static str) {
    let length = |of: fn(char) -> bool| text.find(|c| !of(c)).unwrap_or(text.len());
    if is_in_word {
        return (0, "");
    }
    if text
        .get(..36)
        .is_some_and(|it| uuid::Uuid::parse_str(it).is_ok())
    {
        return (36, "ID");
    }
    let hex = length(|c| c.is_ascii_hexdigit());
    let word = length(char::is_alphanumeric);
    if hex == 8 && word == 8 {
        return (8, "ID");
    }
    let digits = length(|c| c.is_ascii_digit());
    let time = length(|c| c.is_ascii_digit() || "TZ:.-".contains(c));
    if digits == 4 && time >= 10 && text[4..].starts_with('-') {
        return (time, "TIME");
    }
    let number = length(|c| c.is_ascii_digit() || ".:".contains(c));
    let number = text[..number].trim_end_matches(['.', ':']).len();
    let unit = text[number..].trim_end_matches([',', ';', ')']);
    match digits > 0 {
        true if matches!(unit, "s" | "m" | "h") => (number + unit.len(), "#"),
        true if number > digits || digits >= 4 => (number, "#"),
        _ => (0, ""),
    }
}

#[test]
fn what_differs_each_time_matches_and_nothing_else() {
    for (expected, line) in [
        ("killed 3", "killed 3"),
        ("  app   up", "  app  up"),
        (
            "2026-11-20T20:00:00.123Z close 7f8c1a52 192.0.2.7:51234 -> app 0.31 s",
            "2026-12-01T21:10:00.001Z close 00ff1234 127.0.0.1:1234 -> app 12.5 s",
        ),
        (
            "process 4711, running for 2h",
            "process 12345, running for 0s",
        ),
        ("memory …", "memory 29.3 MiB"),
        ("a … c … e", "a b c d e"),
    ] {
        assert!(matches(expected, line), "{expected}: {line}");
    }
    for (expected, line) in [
        ("killed 3", "killed 2"),
        ("down", "up"),
        ("a … c", "a b d"),
        ("done 1, denied 2", "done 1, denied 3"),
        ("x", "x y"),
    ] {
        assert!(!matches(expected, line), "{expected}: {line}");
    }
}
