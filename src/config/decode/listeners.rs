//! The `[[listener]]` tables, and the checks between their addresses.

use super::tunnel::tunnel;
use super::{Decoder, unique};
use crate::address::Address;
use crate::config::Listener;
use crate::config::forecast::{forecast, real};
use crate::config::foreign;
use crate::config::handshake::handshake;
use crate::config::proxy_protocol;
use crate::config::table::Table;
use crate::config::unix::access;
use crate::config::words::name;

impl Decoder<'_> {
    /// Reads the listeners. None of them may have the address of the `gate`.
    pub(super) fn listeners(
        &self,
        root: &mut Table<'_>,
        gate: Option<Address>,
    ) -> (Vec<Listener>, Vec<String>) {
        let mut listeners = Vec::new();
        let mut names = Vec::new();
        let mut taken: Vec<_> = gate.map(|it| (it, "the gate")).into_iter().collect();
        let tables = root.tables("listener");
        if tables.as_ref().is_some_and(Vec::is_empty) && !self.only_joins {
            root.problem("there is no `[[listener]]`; add one with `name` and `address`".into());
        }
        for mut table in tables.unwrap_or_default() {
            let name = table.require("name", name);
            let address = address(&mut table, &mut taken);
            let access = access(&mut table, address.as_ref());
            let proxies = proxy_protocol::accepted(&mut table, address.as_ref());
            foreign::listener(&mut table);
            // `None` after a problem in the table: then the listener must not turn into a plaintext
            // one.
            let tls = match table.table("tls") {
                Some(tls) => handshake(tls, self.files).map(Some),
                None => Some(None),
            };
            let tunnel = tunnel(&mut table, tls.as_ref().map(Option::as_ref), &self.workers);
            if let Some(name) = &name {
                unique(&table, name, &mut names);
            }
            table.finish();
            if let (Some(name), Some(address), Some(tls)) = (name, address, tls) {
                listeners.push(Listener {
                    name: name.name,
                    address,
                    tls,
                    access,
                    proxies,
                    tunnel,
                });
            }
        }
        (listeners, names)
    }
}

/// Reads the address of a listener. `taken` has the addresses in use, with their users.
fn address(table: &mut Table<'_>, taken: &mut Vec<(Address, &'static str)>) -> Option<Address> {
    let place = table.place("address").unwrap_or_default();
    let address = table.require("address", |value| value.parsed(str::parse::<Address>))?;
    match taken.iter().find(|(it, _)| it.collides_with(&address)) {
        Some((it, who)) if *it == address => {
            table.problem_at(place, format!("{who} already uses {address}"));
        }
        Some((it, who)) => table.problem_at(
            place,
            format!(
                "{who} uses {it}, which conflicts with {address}; remove one of the two (`[::]` \
                 also serves IPv4)"
            ),
        ),
        None => {
            forecast(table, place, &address);
            let real = real(&address);
            let same = taken
                .iter()
                .find(|(it, _)| real.is_some() && self::real(it) == real);
            if let Some((it, who)) = same {
                let message = format!(
                    "{who} uses {it}, which is the same path through a link; change one of the two"
                );
                table.unready_at(place, message);
            }
            if address.is_one() {
                taken.push((address.clone(), "another listener"));
            }
        }
    }
    Some(address)
}
