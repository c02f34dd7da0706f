//! Patterns over sequences of parts: `*` matches exactly one part, `**` matches one or more.
//!
//! The parts of a name are its labels; the parts of a URI are the segments of its path. A match
//! neither backtracks nor allocates, whatever a peer sends: the parts before `**` are compared with
//! the front, and the parts after it with the back.

use std::borrow::Cow;

/// Normalizes a DNS name for look-ups: lower case (RFC 4343), without the dot of the root.
pub(crate) fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// A sequence of parts with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    head: Vec<Part>,
    /// The parts after `**`; `None` if there is no `**`.
    tail: Option<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Exact(Box<str>),
    One,
}

/// How parts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Matters,
    /// The case of ASCII letters is ignored, as in DNS names (RFC 4343).
    Ignored,
}

/// The parts that a wildcard matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wildcard {
    /// All but empty, `.` and `..` segments (RFC 3986 §3.3): for rules that allow.
    Real,
    /// Every part: for rules that deny, so that no form of a name evades them.
    Any,
}

/// The pattern has more than one `**`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

impl Pattern {
    /// # Errors
    ///
    /// More than one part is `**`.
    pub(crate) fn new<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Self, Ambiguous> {
        let (mut head, mut tail) = (Vec::new(), None);
        for part in parts {
            match part {
                "**" if tail.is_some() => return Err(Ambiguous),
                "**" => tail = Some(Vec::new()),
                part => tail.as_mut().unwrap_or(&mut head).push(Part::new(part)),
            }
        }
        Ok(Self { head, tail })
    }

    pub(crate) fn matches<'a>(
        &self,
        mut parts: impl DoubleEndedIterator<Item = &'a str>,
        case: Case,
        wildcard: Wildcard,
    ) -> bool {
        let stands_for = |part: &str| wildcard.stands_for(part);
        let same = |ours: &Part, theirs: Option<&str>| {
            theirs.is_some_and(|theirs| match ours {
                Part::One => stands_for(theirs),
                Part::Exact(ours) => case.is_same(ours, theirs),
            })
        };
        let tail = self.tail.as_deref().unwrap_or_default();
        self.head.iter().all(|part| same(part, parts.next()))
            && tail.iter().rev().all(|part| same(part, parts.next_back()))
            && match self.tail {
                None => parts.next().is_none(),
                Some(_) => parts.next().is_some_and(stands_for) && parts.all(stands_for),
            }
    }

    /// Whether it has no wildcards.
    pub(crate) fn is_exact(&self) -> bool {
        self.tail.is_none() && !self.head.contains(&Part::One)
    }
}

impl Part {
    fn new(text: &str) -> Self {
        match text {
            "*" => Self::One,
            text => Self::Exact(text.into()),
        }
    }
}

impl Case {
    fn is_same(self, one: &str, other: &str) -> bool {
        match self {
            Self::Matters => one == other,
            Self::Ignored => one.eq_ignore_ascii_case(other),
        }
    }
}

impl Wildcard {
    fn stands_for(self, part: &str) -> bool {
        self == Self::Any || !matches!(part, "" | "." | "..")
    }
}
