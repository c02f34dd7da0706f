//! All revocations, arranged for the question of an admission: is this client revoked?

use std::collections::HashSet;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::target::{Kind, Target, normal, serial_of};
use crate::id::Id;
use crate::identity::{Identity, Rule};

/// A revoked identity: clients with it are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// Names the revocation when it is removed.
    pub id: Id,
    /// For example `cn:alice`, `sha256:…` or `serial:…`: DNS names and digits in lower case, digits without
    /// colons, a serial number without leading zeros.
    pub identity: String,
    /// When it was revoked, in whole milliseconds.
    pub created: SystemTime,
}

/// Revocations in the order of their making, each with what it is about.
pub(super) type All = Vec<(Revocation, Target)>;

#[derive(Debug, Default)]
pub(super) struct Table {
    all: All,
    /// The targets that a client is looked up by: names and serial numbers.
    exact: HashSet<Box<str>>,
    has_serials: bool,
    /// An admission compares the client with each of these, so they are few.
    patterns: Vec<Rule>,
}

impl Table {
    pub(super) fn of(all: All) -> Self {
        let mut table = Self::default();
        for (_, target) in &all {
            match target.kind() {
                Kind::Pattern(rule) => table.patterns.push(rule.clone()),
                Kind::Serial => {
                    table.has_serials = true;
                    table.exact.insert(target.text().into());
                }
                Kind::Name => drop(table.exact.insert(target.text().into())),
            }
        }
        table.all = all;
        table
    }

    pub(super) fn all(&self) -> &All {
        &self.all
    }

    /// The revoked identity that a client has, if it has one.
    pub(super) fn find(&self, client: &Identity, chain: &[CertificateDer<'_>]) -> Option<String> {
        let is_revoked = |name: &str| self.exact.contains(name);
        let name = || client.names().map(|it| normal(&it).into_owned());
        let serial = || self.has_serials.then(|| serial_of(chain)).flatten();
        let pattern = || self.patterns.iter().find(|it| it.turns_away(client));
        name()
            .find(|it| is_revoked(it))
            .or_else(|| serial().filter(|it| is_revoked(it)))
            .or_else(|| pattern().map(Rule::normal))
    }
}
