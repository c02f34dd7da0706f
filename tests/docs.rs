//! The documentation: links are valid, and the configuration page names every key.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_relative_link_leads_to_a_file_and_its_heading() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        let directory = page.parent().expect("a file is in a directory");
        for link in links(&text) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => directory.join(path),
            };
            let leads = match (target.exists(), heading) {
                (there, "") => there,
                (there, heading) => there && headings(&read(&target)).contains(heading),
            };
            if !leads {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_configuration_page_names_every_key_and_no_other() {
    let page = read(&project("docs/configuration.md"));
    // Only tables and headings count, not prose.
    let lines = || page.lines().filter(|it| it.starts_with(['|', '#']));
    let is_documented = |key: &String| {
        let forms = [
            format!("`{key}`"),
            format!(".{key}`"),
            format!("[{key}]"),
            format!("{{ {key} = "),
            format!(", {key} = "),
        ];
        lines().any(|line| forms.iter().any(|form| line.contains(form)))
    };
    let known = known_keys();
    assert!(
        known.len() > 60,
        "the keys are read in another way now: {known:?}"
    );
    let missing: Vec<&String> = known.iter().filter(|key| !is_documented(key)).collect();
    assert!(
        missing.is_empty(),
        "not in docs/configuration.md: {missing:?}"
    );

    let rows = rows(&page).into_iter();
    let named = rows.flat_map(|(keys, _)| keys);
    let invented: Vec<&str> = named.filter(|key| !known.contains(*key)).collect();
    assert!(invented.is_empty(), "no keys of src/config: {invented:?}");
}

/// The tests of src/config compare the reference file with the code.
#[test]
fn the_configuration_page_has_the_defaults_of_the_reference_file() {
    let page = read(&project("docs/configuration.md"));
    let reference = read(&project("examples/reference.toml"));
    let mut compared = 0;
    for (keys, default) in rows(&page) {
        let Some(literal) = default
            .strip_prefix('`')
            .and_then(|it| it.split('`').next())
        else {
            continue;
        };
        let is_toml = literal.starts_with(|c: char| c.is_ascii_digit() || "\"[{tf".contains(c));
        for key in keys.into_iter().filter(|_| is_toml) {
            let line = format!("{key} = {literal}");
            let has_it = |it: &str| it.trim_start_matches(['#', ' ']).starts_with(&line);
            assert!(
                reference.lines().any(has_it),
                "no `{line}` in reference.toml"
            );
            compared += 1;
        }
    }
    assert!(compared > 30, "only {compared} defaults were compared");
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
    ]
    .map(project)
    .into();
    pages.push(project("examples/README.md"));
    add_files_below(&project("docs"), "md", &mut pages);
    pages
}

fn add_files_below(directory: &Path, suffix: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            add_files_below(&path, suffix, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == suffix)
        {
            files.push(path);
        }
    }
}

/// The targets of `[text](target)` that are not on the web.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|it| !it.contains("://")).collect()
}

/// The fragments of a page's headings, in GitHub's form.
fn headings(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !is_code) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c => (c.is_alphanumeric() || "-_".contains(c)).then_some(c),
            });
            found.insert(kept.collect());
        }
    }
    found
}

/// The keys in the first column of the tables, with the second column. Flags are left out.
fn rows(page: &str) -> Vec<(Vec<&str>, &str)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| !row.starts_with("--"));
    rows.map(|row| {
        let mut columns = row.split(" | ");
        let keys = columns.next().unwrap_or_default().split("`, `");
        let keys = keys.map(|key| key.trim_end_matches('`'));
        let keys = keys.map(|key| key.rsplit_once('.').map_or(key, |(_, last)| last));
        (keys.collect(), columns.next().unwrap_or_default())
    })
    .collect()
}

/// The keys that src/config reads, which are string literals in a few kinds of calls in its source.
fn known_keys() -> BTreeSet<String> {
    const CALLS: [&str; 12] = [
        "read",
        "require",
        "list",
        "any_of",
        "table",
        "tables",
        "tables_such_as",
        "take",
        "later",
        "place",
        "limit",
        "timeout",
    ];
    let mut files = Vec::new();
    add_files_below(&project("src/config"), "rs", &mut files);
    files.retain(|path| !path.components().any(|it| it.as_os_str() == "tests"));
    let mut keys = BTreeSet::new();
    for path in files {
        let text = read(&path);
        for (at, _) in text.match_indices('(') {
            let name = text[..at]
                .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                .next();
            let literal = text[at + 1..].trim_start().strip_prefix('"');
            if let (Some(name), Some(literal)) = (name, literal)
                && CALLS.contains(&name)
                && let Some((key, _)) = literal.split_once('"')
            {
                keys.insert(key.to_owned());
            }
        }
    }
    keys
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
