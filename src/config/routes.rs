//! The `[[route]]` tables, and the default route to an only backend.

use super::foreign;
use super::table::Table;
use super::value::Value;
use super::words::{network, protocol};
use crate::authority::AuthorityPattern;
use crate::identity;
use crate::route::{Action, NamePattern, Routes, Rule};

/// `None` only after a problem was reported.
pub(super) fn routes(
    root: &mut Table<'_>,
    backends: &[String],
    listeners: &[String],
    identifying: &[String],
) -> Option<Routes> {
    let tables = root.tables("route")?;
    if tables.is_empty() {
        return match backends {
            [only] => Some(Routes::new(vec![Rule {
                action: Action::Backend(only.clone()),
                ..Rule::default()
            }])),
            [] => None,
            _ => {
                root.problem(
                    "with several backends, add `[[route]]` tables that choose between them".into(),
                );
                None
            }
        };
    }
    let places: Vec<usize> = tables.iter().map(Table::start).collect();
    let rules: Vec<Option<Rule>> = tables
        .into_iter()
        .map(|table| rule(table, backends, listeners, identifying))
        .collect();
    let rules: Vec<Rule> = rules.into_iter().collect::<Option<_>>()?;
    warn_of_the_unreachable(root, &rules, &places);
    Some(Routes::new(rules))
}

/// Warns about routes that never match, because an earlier route matches all of their connections.
fn warn_of_the_unreachable(root: &Table<'_>, rules: &[Rule], places: &[usize]) {
    let mut broad: Vec<(&Rule, usize)> = Vec::new();
    for (rule, &place) in rules.iter().zip(places) {
        if let Some((_, taker)) = broad.iter().find(|(broad, _)| broad.takes_all_of(rule)) {
            let taker = root.which("route", *taker);
            let warning = format!("`route`: never matches, because {taker} matches first");
            root.warn_at(place, warning);
        } else if rule.is_broad() {
            broad.push((rule, place));
        }
    }
}

/// `None` only after a problem was reported. `identifying` are the listeners that ask clients for
/// certificates.
fn rule(
    mut table: Table<'_>,
    backends: &[String],
    listeners: &[String],
    identifying: &[String],
) -> Option<Rule> {
    let listener = table.any_of("listener", |value| value.one_of("listener", listeners));
    let sni = table.any_of("sni", |value| value.parsed(str::parse::<NamePattern>));
    let alpn = table.any_of("alpn", protocol);
    let from = table.any_of("from", network);
    let place = table.place("identity");
    let identity = table.any_of("identity", |value| {
        value.parsed(str::parse::<identity::Rule>)
    });
    let authority = table.any_of("authority", |value| {
        value.parsed(str::parse::<AuthorityPattern>)
    });
    let is_met = match &listener {
        Some(names) => names.iter().any(|name| identifying.contains(name)),
        None => !identifying.is_empty(),
    };
    if let Some(place) = place.filter(|_| !is_met) {
        let warning = "`route.identity`: never matches, because no listener of this route has \
         `client_auth = \"optional\"` or \"required\"";
        table.warn_at(place, warning.into());
    }
    let has_backend = table.place("backend").is_some();
    let has_deny = table.place("deny").is_some();
    let backend = table.read("backend", |value| value.one_of("backend", backends));
    let deny = table.read("deny", Value::boolean);
    let action = match (backend, deny) {
        (Some(backend), None | Some(false)) => Some(Action::Backend(backend)),
        (None, Some(true)) if !has_backend => Some(Action::Deny),
        // The problem of the given key was reported already.
        (None, None) if has_backend || has_deny => None,
        _ => {
            table.problem("a route needs either `backend = \"…\"` or `deny = true`".into());
            None
        }
    };
    foreign::route(&mut table);
    table.finish();
    Some(Rule {
        listener: listener.unwrap_or_default(),
        sni: sni.unwrap_or_default(),
        alpn: alpn.unwrap_or_default(),
        from: from.unwrap_or_default(),
        identity: identity.unwrap_or_default(),
        authority: authority.unwrap_or_default(),
        action: action?,
    })
}
