//! Chooses the backend of a connection: the first rule that matches.
//!
//! ```text
//! ClientHello ─► expect: can any rule choose a backend? ─► handshake ─► choose: which one
//! ```
//!
//! A client's identity is known only after its handshake. Before that, a rule that requires an
//! identity may or may not match. A client that no identity could help is refused before the
//! handshake; all others are decided after it.

mod name;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) use self::name::NamePattern;
use crate::authority::AuthorityPattern;
use crate::identity::{self, Identity};
use crate::pattern::normal;

/// The rules in order, with an index of the exact names.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    /// The rules. Each keeps only its names with wildcards; the exact ones are in the index.
    rules: Vec<Rule>,
    /// The rules that have this exact name, in order.
    by_name: HashMap<String, Vec<usize>>,
    /// The rules that may match other names too, in order.
    others: Vec<usize>,
}

/// One rule: every key that is given must match. A list matches if any of its entries does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub listener: Vec<String>,
    pub sni: Vec<NamePattern>,
    pub alpn: Vec<String>,
    pub from: Vec<IpNet>,
    pub identity: Vec<identity::Rule>,
    pub authority: Vec<AuthorityPattern>,
    pub action: Action,
}

impl Rule {
    /// Whether it matches every client and every server name.
    pub(crate) fn is_broad(&self) -> bool {
        self.sni.is_empty()
            && self.from.is_empty()
            && self.identity.is_empty()
            && self.authority.is_empty()
    }

    /// Whether this rule, which [is broad](Self::is_broad), matches everything that `other` does,
    /// so that `other` behind it is never reached.
    pub(crate) fn takes_all_of(&self, other: &Self) -> bool {
        let covers = |mine: &[String], theirs: &[String]| {
            mine.is_empty() || (!theirs.is_empty() && theirs.iter().all(|it| mine.contains(it)))
        };
        covers(&self.listener, &other.listener) && covers(&self.alpn, &other.alpn)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Deny,
    Backend(String),
}

/// The properties of a connection that rules are matched against.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Query<'a> {
    pub listener: &'a str,
    pub sni: Option<&'a str>,
    pub alpn: Option<&'a str>,
    pub peer: Option<IpAddr>,
    /// `None` is a client without an identity.
    pub identity: Option<&'a Identity>,
    /// The host and port that a stream in a tunnel asks for.
    pub authority: Option<&'a str>,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteRefusal {
    NoRoute,
    Denied,
}

/// Whether the handshake may give the client an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expecting {
    Nobody,
    Somebody,
}

/// Whether only protocols that a rule names may be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Any,
    /// A rule that names no protocol makes no statement about the protocol of its backend.
    Required,
}

/// How a rule matches before the client's identity is known.
#[derive(Clone, Copy)]
enum Match {
    Certain,
    Possible,
}

impl Routes {
    pub(crate) fn new(mut rules: Vec<Rule>) -> Self {
        let (mut by_name, mut others) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for (index, rule) in rules.iter_mut().enumerate() {
            let takes_any = rule.sni.is_empty();
            rule.sni.retain(|pattern| {
                let Some(name) = pattern.exact() else {
                    return true;
                };
                let indices = by_name.entry(name.to_owned()).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
                false
            });
            if takes_any || !rule.sni.is_empty() {
                others.push(index);
            }
        }
        Self {
            rules,
            by_name,
            others,
        }
    }

    /// The name of the backend of the first rule that matches.
    ///
    /// # Errors
    ///
    /// No rule matches, or the first one that matches denies.
    pub(crate) fn choose(&self, query: &Query<'_>) -> Result<&str, RouteRefusal> {
        let first = self
            .candidates(query.sni)
            .find(|candidate| candidate.mismatch(query).is_none());
        match first.map(|candidate| &candidate.rule.action) {
            Some(Action::Backend(name)) => Ok(name),
            Some(Action::Deny) => Err(RouteRefusal::Denied),
            None => Err(RouteRefusal::NoRoute),
        }
    }

    /// Whether [`Self::choose`] may choose a backend once the client's identity is known.
    ///
    /// If a rule that is possible now does not match the client's identity later, the client falls
    /// through to the next rule with the protocol that was agreed on; a rule that names no protocol
    /// accepts any. Agreeing on the protocol keeps the promise of the rule that names it.
    pub(crate) fn expect(
        &self,
        query: &Query<'_>,
        expecting: Expecting,
        naming: Naming,
    ) -> Result<(), RouteRefusal> {
        for Candidate { rule, name } in self.candidates(query.sni) {
            let may_match = match (Candidate { rule, name }.mismatch(query), expecting) {
                (None, _) => Match::Certain,
                (Some(IDENTITY), Expecting::Somebody) => Match::Possible,
                (Some(_), _) => continue,
            };
            let is_named = naming == Naming::Any || !rule.alpn.is_empty();
            match (&rule.action, may_match) {
                (Action::Backend(_), _) if is_named => return Ok(()),
                (_, Match::Possible) => {}
                (Action::Deny, Match::Certain) if is_named => return Err(RouteRefusal::Denied),
                // This rule decides about the client, and does not name this protocol.
                (_, Match::Certain) => return Err(RouteRefusal::NoRoute),
            }
        }
        Err(RouteRefusal::NoRoute)
    }

    /// Explains the result of [`Self::choose`]: for each rule up to the one that matches, the first
    /// key that does not match.
    pub(crate) fn trace(&self, query: &Query<'_>) -> Vec<Option<&'static str>> {
        let mut candidates = self.candidates(query.sni).peekable();
        let mut trace = Vec::new();
        for rule in &self.rules {
            let found = candidates.next_if(|candidate| std::ptr::eq(candidate.rule, rule));
            let mismatch = match found {
                Some(candidate) => candidate.mismatch(query),
                None => {
                    let name = Name::Known;
                    let otherwise = Candidate { rule, name }.mismatch(query);
                    otherwise.filter(|key| *key != IDENTITY).or(Some("sni"))
                }
            };
            trace.push(mismatch);
            if mismatch.is_none() {
                break;
            }
        }
        trace
    }

    /// The application protocols (ALPN) in the rules for `listener`, in the order of the rules.
    pub(crate) fn protocols(&self, listener: &str) -> Vec<String> {
        let mut protocols = Vec::new();
        let rules = self.rules.iter();
        for rule in rules.filter(|rule| any(&rule.listener, |name| name == listener)) {
            for protocol in &rule.alpn {
                if !protocols.contains(protocol) {
                    protocols.push(protocol.clone());
                }
            }
        }
        protocols
    }

    /// The rules that may match the server name `sni`, in order.
    fn candidates(&self, sni: Option<&str>) -> impl Iterator<Item = Candidate<'_>> {
        let named = sni.and_then(|name| self.by_name.get(&*normal(name)));
        let mut named = named.map_or(&[][..], Vec::as_slice).iter().peekable();
        let mut others = self.others.iter().peekable();
        std::iter::from_fn(move || {
            let name = match (named.peek(), others.peek()) {
                (Some(name), Some(other)) if name > other => Name::Open,
                (Some(name), Some(other)) if name == other => {
                    others.next();
                    Name::Known
                }
                (Some(_), _) => Name::Known,
                (None, _) => Name::Open,
            };
            let index = match name {
                Name::Known => named.next(),
                Name::Open => others.next(),
            }?;
            let rule = &self.rules[*index];
            Some(Candidate { rule, name })
        })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_name: BTreeMap<_, _> = self.by_name.iter().collect();
        f.debug_struct("Routes")
            .field("rules", &self.rules)
            .field("by_name", &by_name)
            .finish_non_exhaustive()
    }
}

/// A rule that may match.
struct Candidate<'a> {
    rule: &'a Rule,
    name: Name,
}

/// Whether a rule was found through the index of exact names.
enum Name {
    Known,
    Open,
}

impl Candidate<'_> {
    /// The first key that does not match.
    fn mismatch(&self, query: &Query<'_>) -> Option<&'static str> {
        let rule = self.rule;
        let has_name = |pattern: &NamePattern| query.sni.is_some_and(|name| pattern.matches(name));
        let has_address = |network: &IpNet| query.peer.is_some_and(|ip| network.contains(&ip));
        let asks_for = |pattern: &AuthorityPattern| {
            query
                .authority
                .is_some_and(|authority| pattern.matches(authority))
        };
        let is_named = |name: &identity::Rule| {
            query.identity.is_some_and(|identity| match rule.action {
                Action::Backend(_) => name.admits(identity),
                Action::Deny => name.turns_away(identity),
            })
        };
        if !any(&rule.listener, |name| name == query.listener) {
            Some("listener")
        } else if !any(&rule.alpn, |protocol| query.alpn == Some(protocol)) {
            Some("alpn")
        } else if !any(&rule.from, has_address) {
            Some("from")
        } else if matches!(self.name, Name::Open) && !any(&rule.sni, has_name) {
            Some("sni")
        } else if !any(&rule.authority, asks_for) {
            Some("authority")
        } else if !any(&rule.identity, is_named) {
            // This check is last: if the identity is the mismatch, every other key matches.
            Some(IDENTITY)
        } else {
            None
        }
    }
}

/// A key that is not given matches everything.
fn any<T>(list: &[T], matches: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

const IDENTITY: &str = "identity";

#[cfg(test)]
mod tests;
