//! Tests of the configuration: what each key accepts, and which message a wrong value gets.

mod certificates;
mod chains;
mod files;
mod forecast;
mod joins;
mod keys;
mod meaning;
mod sidecar;

use std::fs;

use super::*;

const LISTENER: &str = "\
[[listener]]
name = \"front\"
address = \"tcp:127.0.0.1:8443\"
";

const BACKEND: &str = "\
[[backend]]
name = \"app\"
to = \"tcp:127.0.0.1:9000\"
";

/// A configuration with this part, whose other parts are valid.
fn with(part: &str) -> String {
    format!("{part}\n{LISTENER}{BACKEND}")
}

fn parse(text: &str) -> Config {
    text.parse()
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The problems as they are displayed, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let Err(error) = text.parse::<Config>() else {
        return Vec::new();
    };
    assert!(!error.problems().is_empty(), "refused without a word");
    error
        .to_string()
        .lines()
        .map(|line| {
            let line = line.strip_prefix("configuration:");
            line.expect("the file comes first").to_owned()
        })
        .collect()
}
