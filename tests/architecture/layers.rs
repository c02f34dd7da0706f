//! Compares the layers in ARCHITECTURE.md with the imports of each module.

use std::collections::BTreeMap;

use crate::*;

#[test]
fn every_module_is_in_a_layer_and_imports_only_what_it_may() {
    let layer_of: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, (_, _, modules))| modules.iter().map(move |module| (*module, layer)))
        .collect();
    let mut wrong = Vec::new();
    for file in rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let module = module_of(&file);
        if OUTSIDE.contains(&module.as_str()) || is_test(&file) {
            continue;
        }
        let Some(layer) = layer_of.get(module.as_str()) else {
            wrong.push(format!("{module} is in no layer"));
            continue;
        };
        for imported in imports(&fs::read_to_string(&file).expect("a source file")) {
            let Some(imported_layer) = layer_of.get(imported.as_str()) else {
                wrong.push(format!(
                    "{} imports {imported}, which is in no layer",
                    file.display()
                ));
                continue;
            };
            let (name, peers, _) = LAYERS[*layer];
            let allowed = imported_layer < layer
                || imported == module
                || (imported_layer == layer && peers == Peers::Allowed);
            if !allowed {
                wrong.push(format!("{} ({name}) imports {imported}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_command_line_uses_the_public_api_alone() {
    for file in rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli"))) {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(
            imports(&text).iter().all(|module| module == "cli"),
            "{}",
            file.display()
        );
    }
}

/// From the bottom up. A module may import modules of lower layers, and of its own layer where that
/// is stated.
const LAYERS: [(&str, Peers, &[&str]); 6] = [
    (
        "words",
        Peers::Allowed,
        &[
            "address",
            "authority",
            "deadline",
            "facts",
            "id",
            "identity",
            "log_filter",
            "lost_lines",
            "moment",
            "outcome",
            "pace",
            "pattern",
            "printable",
            "residue",
            "time_slice",
            "traffic",
            "wire",
        ],
    ),
    ("codecs", Peers::Forbidden, &["record"]),
    (
        "mechanisms",
        Peers::Forbidden,
        &[
            "drain",
            "journal",
            "limits",
            "memory",
            "proxy_protocol",
            "relay",
            "rendezvous",
            "route",
            "sys",
            "tls",
            "tunnel",
        ],
    ),
    ("observers", Peers::Allowed, &["audit", "ledger", "metrics"]),
    (
        "flow",
        Peers::Allowed,
        &[
            "active_config",
            "backend",
            "client",
            "connection",
            "join",
            "listener",
            "proxy_state",
            "revocations",
            "worker",
        ],
    ),
    (
        "control",
        Peers::Allowed,
        &[
            "admin",
            "config",
            "doctor",
            "gate",
            "handler",
            "proxy",
            "supervisor",
            "watch",
        ],
    ),
];

#[derive(Clone, Copy, PartialEq)]
enum Peers {
    Allowed,
    Forbidden,
}

/// Modules outside of the layers: the root, the command line (a user of the public API), and the
/// access for fuzzers and benchmarks.
const OUTSIDE: [&str; 5] = ["lib", "main", "cli", "fuzzing", "bench"];

/// The modules after `crate::`, in `use` lines and in paths.
fn imports(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut modules = Vec::new();
    for (_, rest) in code.flat_map(|line| {
        line.match_indices("crate::")
            .map(move |(at, _)| (at, &line[at + 7..]))
    }) {
        let names = match rest.strip_prefix('{') {
            // `use crate::{gate, limits, tls};`
            Some(list) => list.split(['}', ',']).map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String = name
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if !name.is_empty() {
                modules.push(name);
            }
        }
    }
    modules
}

fn module_of(file: &Path) -> String {
    let relative = file
        .strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
        .expect("in src");
    let first = relative
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}
