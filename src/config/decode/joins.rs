//! The `[[join]]` tables.

use super::Decoder;
use crate::active_config::JoinSettings;
use crate::address::Address;
use crate::backend::To;
use crate::config::client_mode::client_mode;
use crate::config::table::Table;
use crate::config::value::{Expected, Value};
use crate::config::words::{name, to};

/// Whether the document has joins, and nothing for connections that are accepted here.
pub(super) fn are_alone(root: &Table<'_>) -> bool {
    root.has("join")
        && !["listener", "backend", "route"]
            .iter()
            .any(|key| root.has(key))
}

impl Decoder<'_> {
    pub(super) fn joins(&self, root: &mut Table<'_>) -> Vec<JoinSettings> {
        let mut joins: Vec<JoinSettings> = Vec::new();
        for mut table in root.tables("join").unwrap_or_default() {
            let place = table.start();
            let Some(join) = self.join(&mut table) else {
                table.finish();
                continue;
            };
            table.finish();
            match joins.contains(&join) {
                true => root.problem_at(
                    place,
                    "`join`: the same table is there twice; remove one and raise its `offers`"
                        .into(),
                ),
                false => joins.push(join),
            }
        }
        joins
    }

    /// `None` only after a problem was reported.
    fn join(&self, table: &mut Table<'_>) -> Option<JoinSettings> {
        let fronts = some(table, "front", |table| table.list("front", front));
        let backend = table.require("backend", name);
        let to = some(table, "to", |table| {
            table.list("to", |value| Ok((local(value)?, value.offset)))
        });
        self.joined
            .borrow_mut()
            .extend(to.iter().flatten().cloned());
        let offers = table.read("offers", |value| value.count_to(MOST_OFFERS));
        table.foreign(&["address", "listen", "server"], "write `front`");
        table.foreign(
            &["allow", "alpn", "ca", "certificate", "server_name"],
            "belongs under `[join.tls]`",
        );
        let place = table.place("tls");
        if place.is_none() {
            table.problem(
                "`join` needs the table `[join.tls]` with a `certificate`, by which the front knows this worker".into(),
            );
        }
        let reached = fronts.clone().map(To::Dialled);
        let mut tls = client_mode(self.files, table, reached.as_ref())??;
        if tls.certificate.is_none() {
            let message =
                "`join.tls` needs the key `certificate`, by which the front knows this worker";
            table.problem_at(place?, message.into());
            return None;
        }
        if tls.alpn.is_empty() {
            tls.alpn.push(ALPN.into());
        }
        Some(JoinSettings {
            fronts: fronts?,
            backend: backend?.name,
            to: to?.into_iter().map(|(address, _)| address).collect(),
            offers: offers.unwrap_or(OFFERS),
            tls,
        })
    }
}

/// Reads a required list that is not empty.
fn some<T>(
    table: &mut Table<'_>,
    key: &'static str,
    read: impl FnOnce(&mut Table<'_>) -> Option<Vec<T>>,
) -> Option<Vec<T>> {
    let place = table.needs(key);
    let list = read(table)?;
    if list.is_empty() {
        table.problem_at(
            place?,
            format!("`join.{key}`: expected at least one address"),
        );
        return None;
    }
    Some(list)
}

fn front(value: &Value<'_>) -> Result<Address, Expected> {
    value.parsed(|text| match (text, to(text)) {
        ("fleet", _) => Err("this version has no fleet; write the addresses of the fronts".into()),
        (_, Ok(To::Dialled(addresses))) => only(addresses),
        (_, Ok(_)) => Err("expected the address of a front, as in `front.example:8443`".into()),
        (_, Err(error)) => Err(error
            .replace("a backend", "a front")
            .replace("; or write gate, hello or echo", "")),
    })
}

fn local(value: &Value<'_>) -> Result<Address, Expected> {
    value.parsed(|text| match to(text)? {
        To::Dialled(addresses) => only(addresses),
        To::Gate | To::Hello | To::Echo => {
            Err("expected the address of a local server, as in `127.0.0.1:8080`".into())
        }
    })
}

fn only(addresses: Vec<Address>) -> Result<Address, Expected> {
    addresses
        .into_iter()
        .next()
        .ok_or_else(|| "expected an address".into())
}

/// HTTP/2 (RFC 9113 §3.1).
const ALPN: &str = "h2";
const OFFERS: usize = 8;
/// Each outstanding offer is a stream at the front.
const MOST_OFFERS: u32 = 1000;
