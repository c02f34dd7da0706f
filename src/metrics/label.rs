//! Labels, which cost no copy of a name.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// The name and the value of a label.
pub(crate) type Label = (&'static str, Text);

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    /// A word from a closed list.
    Word(&'static str),
    /// A name from the configuration.
    Name(Arc<str>),
}

impl From<&'static str> for Text {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<&Arc<str>> for Text {
    fn from(name: &Arc<str>) -> Self {
        Self::Name(Arc::clone(name))
    }
}

impl From<String> for Text {
    fn from(name: String) -> Self {
        Self::Name(name.into())
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => EncodeLabelValue::encode(word, encoder),
            Self::Name(name) => EncodeLabelValue::encode(&&**name, encoder),
        }
    }
}
