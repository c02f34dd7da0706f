//! The rules for all source files: their layers, no import cycles, and the maximum length of a
//! file.

mod architecture {
    mod circles;
    mod layers;
}

use std::fs;
use std::path::{Path, PathBuf};

/// The length of a file with one job.
const MOST_LINES: usize = 400;

/// Exceptions, each with its reason.
const LONGER: &[(&str, &str)] = &[];

#[test]
fn no_file_has_more_than_400_lines() {
    let mut wrong = Vec::new();
    for directory in ["src", "tests", "benches", "fuzz"] {
        for file in files(&project(directory), &["rs", "py"]) {
            let text = fs::read_to_string(&file).expect("a source file");
            let name = file.strip_prefix(project("")).expect("of the project");
            let is_excepted = LONGER.iter().any(|(longer, _)| name == Path::new(longer));
            let lines = text.lines().count();
            match (lines > MOST_LINES, is_excepted) {
                (true, false) => wrong.push(format!("{} has {lines} lines", name.display())),
                (false, true) => wrong.push(format!("{} needs no exception", name.display())),
                _ => {}
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "more than {MOST_LINES} lines: move a part with a job of its own: {wrong:#?}"
    );
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    files(directory, &["rs"])
}

/// Files with one of the extensions, without build output.
fn files(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let extension = path.extension().and_then(|it| it.to_str());
        if path.is_dir() {
            if !path.ends_with("target") {
                found.extend(files(&path, extensions));
            }
        } else if extension.is_some_and(|it| extensions.contains(&it)) {
            found.push(path);
        }
    }
    found
}

/// Tests may combine modules that do not know each other.
fn is_test(file: &Path) -> bool {
    file.components()
        .any(|component| matches!(component.as_os_str().to_str(), Some("tests" | "tests.rs")))
}
