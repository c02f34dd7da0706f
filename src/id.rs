//! The id of a connection: a UUID v4 with 122 random bits from the operating system (RFC 9562
//! §5.4).

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::{Builder, Uuid};
use zeroize::Zeroize;

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
        let bytes = RESERVE.try_with(|reserve| reserve.borrow_mut().take());
        Self(match bytes {
            Ok(Some(bytes)) => Builder::from_random_bytes(bytes).into_uuid(),
            // The thread is ending, or the system has no random bytes, which this reports.
            Ok(None) | Err(_) => Uuid::new_v4(),
        })
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

/// Random bytes of this thread for its next ids: one system call provides several.
struct Reserve {
    bytes: [u8; RESERVED],
    left: usize,
}

thread_local! {
    static RESERVE: RefCell<Reserve> = const {
        RefCell::new(Reserve {
            bytes: [0; RESERVED],
            left: 0,
        })
    };
}

impl Reserve {
    /// Bytes that are used once: nothing of them stays here.
    fn take(&mut self) -> Option<[u8; ID]> {
        if self.left == 0 {
            let filled = getrandom(&mut self.bytes, GetRandomFlags::empty()).ok()?;
            self.left = filled - filled % ID;
        }
        let bytes = self.bytes[..self.left].last_chunk_mut::<ID>()?;
        let id = *bytes;
        bytes.zeroize();
        self.left -= ID;
        Some(id)
    }
}

const ID: usize = size_of::<Uuid>();

/// The most that the kernel returns in one piece whatever happens (getrandom(2)).
const RESERVED: usize = 256;

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
    fn no_id_comes_twice_in_any_thread() {
        let ids = || Vec::from_iter((0..10 * RESERVED / ID + 1).map(|_| Id::random()));
        let others = [(); 4].map(|()| std::thread::spawn(ids));
        let mut all = ids();
        for other in others {
            all.extend(other.join().expect("no panic"));
        }
        for id in &all {
            assert_eq!(id.0.get_version_num(), 4);
            assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        }
        let distinct = std::collections::HashSet::<_>::from_iter(&all);
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn used_bytes_are_overwritten() {
        let mut reserve = Reserve {
            bytes: [0; RESERVED],
            left: 0,
        };
        for count in 1..=RESERVED / ID {
            assert_ne!(reserve.take(), Some([0; ID]));
            assert_eq!(reserve.left, RESERVED - count * ID);
            assert!(reserve.bytes[reserve.left..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn debug_output_does_not_reveal_the_capability() {
        let id = Id::random();
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }
}
