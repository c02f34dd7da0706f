//! The library in another crate, built without the dependencies of the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Dependencies that only the command line needs.
const COMMAND_LINE: [&str; 5] = [
    "anyhow",
    "clap",
    "clap_complete",
    "tikv-jemallocator",
    "tracing-subscriber",
];

#[test]
fn another_crate_embeds_the_library_without_the_dependencies_of_the_command_line() {
    let embedding = embedding();
    let tree = cargo(
        &embedding,
        &["tree", "--edges", "normal", "--prefix", "none"],
    );
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"vestibule"), "{tree}");
    for name in COMMAND_LINE {
        assert!(!names.contains(&name), "{name} is in it:\n{tree}");
    }
    let said = cargo(&embedding, &["run", "--quiet"]);
    assert_eq!(said, "served, listed and killed\n");
}

/// The embedding crate, with the versions that this crate is tested with.
fn embedding() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let embedding = project.join("tests/embedding");
    fs::copy(project.join("Cargo.lock"), embedding.join("Cargo.lock")).expect("a lock file");
    embedding.join("Cargo.toml")
}

/// The output of a cargo command. Its build directory is next to ours: most dependencies are the
/// same.
fn cargo(manifest: &Path, arguments: &[&str]) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_vestibule"))
        .ancestors()
        .nth(2)
        .expect("target/debug/vestibule");
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .arg("--manifest-path")
        .arg(manifest)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo");
    let (said, error) = (output.stdout, output.stderr);
    let [said, error] = [said, error].map(|text| String::from_utf8(text).expect("text"));
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {said}{error}"
    );
    said
}
