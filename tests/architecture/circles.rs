//! No files and no modules import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::*;

/// Files that import each other cannot be read one after the other, nor changed one by one. A file
/// and the file that declares it as a module belong together, and are allowed to.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = circles(&imported_files());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let top = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
    for (file, imported) in imported_files() {
        let imported = imported.iter().map(|it| top(it));
        modules.entry(top(&file)).or_default().extend(imported);
    }
    for (module, imported) in &mut modules {
        imported.remove(module);
    }
    let circles = circles(&modules);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn exactly_the_circles_are_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        graph
    };
    let none = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")];
    assert_eq!(circles(&graph(&none)).len(), 0);
    let one = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")];
    assert_eq!(circles(&graph(&one)), [["b", "c"]]);
    let statement = "use super::{a::{B, c::D}, e};\nuse crate::f::G as H;\nlet x = crate::i::j();";
    let expected = [
        "crate::f::G",
        "crate::i::j",
        "super::a::B",
        "super::a::c::D",
        "super::e",
    ];
    assert_eq!(paths(statement), expected);
}

/// The imports of each file, without those between a module and its parent.
fn imported_files() -> BTreeMap<String, BTreeSet<String>> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let files: BTreeMap<String, PathBuf> = rust_files(source)
        .into_iter()
        .filter(|file| !is_test(file))
        .map(|file| (path_of(&file), file))
        .filter(|(path, _)| !["", "main", "fuzzing", "bench"].contains(&first(path)))
        .collect();
    let mut graph = BTreeMap::new();
    for (module, file) in &files {
        let text = fs::read_to_string(file).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests {").next();
        let imported = paths(code.unwrap_or_default());
        let imported = imported
            .iter()
            .filter_map(|path| resolve(path, module, &files))
            .filter(|other| !is_related(module, other));
        graph.insert(module.clone(), imported.collect());
    }
    graph
}

/// The file that a path leads to, if it is in this crate.
fn resolve(path: &str, module: &str, files: &BTreeMap<String, PathBuf>) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").collect();
    let mut at: Vec<&str> = match parts.remove(0) {
        "crate" => Vec::new(),
        "self" => module.split("::").collect(),
        "super" => {
            let mut parent: Vec<&str> = module.split("::").collect();
            parent.pop();
            while parts.first() == Some(&"super") {
                parts.remove(0);
                parent.pop();
            }
            parent
        }
        _ => return None,
    };
    let mut found = None;
    for part in parts {
        if files.contains_key(&at.join("::")) {
            found = Some(at.join("::"));
        }
        at.push(part);
    }
    match files.contains_key(&at.join("::")) {
        true => Some(at.join("::")),
        false => found,
    }
}

fn is_related(one: &str, other: &str) -> bool {
    let is_below = |one: &str, other: &str| {
        one.strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    is_below(one, other) || is_below(other, one)
}

/// Every path that starts with `crate`, `super` or `self`, with braces expanded.
fn paths(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let is_start =
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if is_start {
                write_out("", &code[at..], &mut paths);
            }
        }
    }
    paths.sort();
    paths
}

/// Expands the path at the start of `text`, and returns the rest of the text.
fn write_out<'a>(before: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = write_out(before, rest, paths).trim_start();
            match rest.strip_prefix(',') {
                Some(next) if next.trim_start().starts_with('}') => {
                    return next.trim_start().trim_start_matches('}');
                }
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    match rest.strip_prefix("::") {
        Some(rest) => write_out(&format!("{before}{name}::"), rest, paths),
        None => {
            paths.push(format!("{before}{name}"));
            let renamed = rest.trim_start().strip_prefix("as ");
            renamed.map_or(rest, |rest| {
                rest.trim_start()
                    .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

/// The groups of nodes that can be reached from each other.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = graph.get(from).into_iter().flatten().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(graph.get(module).into_iter().flatten());
            }
        }
        reached
    };
    let mut circles = BTreeSet::new();
    for module in graph.keys() {
        let all = reached(module);
        if all.contains(module) {
            let back = all.into_iter().filter(|it| reached(it).contains(module));
            circles.insert(back.cloned().collect::<Vec<String>>());
        }
    }
    circles.into_iter().collect()
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; `src/lib.rs` is the root.
fn path_of(file: &Path) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let relative = file
        .strip_prefix(source)
        .expect("in src")
        .with_extension("");
    let parts = relative.iter().map(|part| part.to_string_lossy());
    let parts: Vec<_> = parts
        .filter(|part| part != "mod" && part != "lib")
        .collect();
    parts.join("::")
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}
