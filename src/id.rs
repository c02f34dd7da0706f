//! The id of a connection: a UUID v4 with 122 random bits from the operating system (RFC 9562
//! §5.4).

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The id of a connection, and at the gate the capability to claim it.
///
/// ```
/// use vestibule::Id;
///
/// let id = Id::random();
/// assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
/// assert!("not an id".parse::<Id>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Uuid);

impl Id {
    /// A new id that nobody can guess.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The smallest and the largest id.
    pub(crate) const MIN: Self = Self(Uuid::nil());
    pub(crate) const MAX: Self = Self(Uuid::max());

    /// The 16 bytes of the UUID, in network order (RFC 9562 §4).
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The first eight characters, for logs: enough to find a connection, not enough to claim it.
    pub(crate) fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

/// Lower case, with hyphens.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Never shows the whole id: it is a capability, and `Debug` output gets into logs.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({}…)", self.short())
    }
}

/// Accepts only the hyphenated form, in upper or lower case.
impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        // The uuid crate also accepts braces, URNs and bare digits; the length excludes them.
        if text.len() != HYPHENATED_LENGTH {
            return Err(ParseIdError);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError)
    }
}

impl From<Uuid> for Id {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<Id> for Uuid {
    fn from(id: Id) -> Self {
        id.0
    }
}

/// The text is not a UUID in the hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in the hyphenated form")]
pub struct ParseIdError;

const HYPHENATED_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_read() {
        let id = Id::random();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        for wrong in [
            String::new(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
            format!("{text} "),
            text.replace('-', "_"),
            text[..35].to_owned(),
        ] {
            assert_eq!(wrong.parse::<Id>(), Err(ParseIdError), "{wrong:?}");
        }
    }

    #[test]
    fn debug_output_does_not_reveal_the_capability() {
        let id = Id::random();
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }
}
