//! The `[[backend]]` tables, and their addresses.

use std::cell::RefCell;

use super::{Decoder, health, originate, unique};
use crate::address::Address;
use crate::backend::pool::Balance;
use crate::backend::{self, Park, To};
use crate::config::client_mode::client_mode;
use crate::config::foreign;
use crate::config::proxy_protocol;
use crate::config::table::Table;
use crate::config::value::Value;
use crate::config::words::{name, to};
use crate::identity::Rule;

pub(super) fn backends(
    decoder: &Decoder<'_>,
    root: &mut Table<'_>,
) -> (Vec<backend::BackendSettings>, Vec<String>) {
    let mut backends = Vec::new();
    let mut names = Vec::new();
    let tables = root.tables("backend");
    if tables.as_ref().is_some_and(Vec::is_empty) && !decoder.only_joins {
        root.problem("there is no `[[backend]]`; add one with `name` and `to`".into());
    }
    for mut table in tables.unwrap_or_default() {
        let name = table.require("name", name);
        let to = addresses(&mut table, &decoder.dialled);
        let balance = table.read("balance", |value| {
            value.word(&[
                ("least_connections", Balance::LeastConnections),
                ("round_robin", Balance::RoundRobin),
                ("source", Balance::Source),
            ])
        });
        let park = table.read("park", Value::boolean).unwrap_or(true);
        let is_built_in = to.as_ref().is_some_and(To::is_built_in);
        let health = table.table("health");
        let (health, check) = health
            .map(|it| health::health(it, is_built_in))
            .unwrap_or_default();
        let proxy_protocol = proxy_protocol::sent(&mut table, to.as_ref());
        let mut tls = client_mode(decoder.files, &mut table, to.as_ref());
        let of_tls = tls.as_mut().map(Option::as_mut);
        let tunnel = originate::originate(&mut table, to.as_ref(), of_tls);
        let place = table.place("workers");
        let workers = workers(&mut table, to.as_ref());
        let serve = place.filter(|_| !workers.is_empty());
        decoder.workers.serve_backend(serve);
        foreign::backend(&mut table);
        if let Some(name) = &name {
            unique(&table, name, &mut names);
        }
        table.finish();
        if let (Some(name), Some(to), Some(tls), Some(tunnel)) = (name, to, tls, tunnel) {
            backends.push(backend::BackendSettings {
                name: name.name,
                to,
                balance: balance.unwrap_or(Balance::LeastConnections),
                park: if park { Park::Hold } else { Park::Refuse },
                health,
                check,
                proxy_protocol,
                tls,
                tunnel,
                workers,
            });
        }
    }
    (backends, names)
}

/// Reads who may serve the backend through tunnels.
fn workers(table: &mut Table<'_>, to: Option<&To>) -> Vec<Rule> {
    let place = table.place("workers");
    let rules = table.list("workers", |value| value.parsed(str::parse::<Rule>));
    let rules = rules.unwrap_or_default();
    if let Some(place) = place
        && !rules.is_empty()
        && to.is_some_and(|to| *to != To::Gate)
    {
        let message = "`backend.workers` needs `to = \"gate\"`: workers come for connections, and \
                       are not dialled";
        table.problem_at(place, message.into());
    }
    rules
}

/// Reads one or more addresses, or one word.
fn addresses(table: &mut Table<'_>, dialled: &RefCell<Vec<(Address, usize)>>) -> Option<To> {
    let place = table.needs("to");
    let targets = table.list("to", |value| Ok((value.parsed(to)?, value.offset)))?;
    let is_alone = targets.len() == 1;
    let mut addresses = Vec::new();
    for (target, offset) in targets {
        match target {
            To::Dialled(one) => {
                let places = one.iter().cloned().map(|address| (address, offset));
                dialled.borrow_mut().extend(places);
                addresses.extend(one);
            }
            word if is_alone => return Some(word),
            To::Gate | To::Hello | To::Echo => {
                table.problem_at(
                    offset,
                    "`backend.to`: gate, hello and echo cannot be combined with other entries"
                        .into(),
                );
                return None;
            }
        }
    }
    if addresses.is_empty() {
        table.problem_at(place?, "`backend.to`: expected at least one address".into());
        return None;
    }
    Some(To::Dialled(addresses))
}
