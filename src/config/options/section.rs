//! A TOML table that the setters of the options fill.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;

use super::source::{DataSource, Origin};
use crate::address::Address;
use crate::config::files::InMemory;

/// The keys of a table that were set. The others keep their defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Section(BTreeMap<&'static str, Item>);

/// The value of a key.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Path(PathBuf),
    UnixAddress(PathBuf),
    Data(DataSource),
    List(Vec<Item>),
    Section(Section),
}

impl Section {
    /// Sets a key. The last value wins.
    pub(super) fn set(&mut self, key: &'static str, item: impl Into<Item>) {
        self.0.insert(key, item.into());
    }

    /// As [`Section::set`], for the address of a Unix socket, whose path may be relative.
    pub(super) fn set_unix_address(&mut self, key: &'static str, path: PathBuf) {
        self.0.insert(key, Item::UnixAddress(path));
    }

    /// As [`Section::set`], for a list.
    pub(super) fn set_list(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item: Into<Item>>,
    ) {
        let items = items.into_iter().map(Into::into).collect();
        self.0.insert(key, Item::List(items));
    }

    /// As [`Section::set`], for a list of strings.
    pub(super) fn set_texts(
        &mut self,
        key: &'static str,
        texts: impl IntoIterator<Item: ToString>,
    ) {
        self.set_list(key, texts.into_iter().map(|text| text.to_string()));
    }

    /// As [`Section::set`], for a limit. `None` is unlimited.
    pub(super) fn set_limit(&mut self, key: &'static str, limit: Option<usize>) {
        self.set(key, limit.map_or_else(unlimited, Item::from));
    }

    /// As [`Section::set`], for a timeout. `None` is unlimited.
    pub(super) fn set_timeout(&mut self, key: &'static str, timeout: Option<Duration>) {
        let written = |timeout| Item::Text(format_duration(timeout).to_string());
        self.set(key, timeout.map_or_else(unlimited, written));
    }

    /// Adds to the list of a key.
    pub(super) fn push(&mut self, key: &'static str, item: impl Into<Item>) {
        let list = self.0.entry(key).or_insert(Item::List(Vec::new()));
        if let Item::List(items) = list {
            items.push(item.into());
        }
    }

    /// The string of a key, if it was set.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Item::Text(text)) => Some(text),
            _ => None,
        }
    }
}

fn unlimited() -> Item {
    Item::from("unlimited")
}

impl From<bool> for Item {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

/// TOML has no number above `i64::MAX`, and no key accepts one that large.
impl From<usize> for Item {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Item {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Item {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<PathBuf> for Item {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<Address> for Item {
    fn from(address: Address) -> Self {
        match address {
            Address::Unix(path) => Self::UnixAddress(path),
            tcp @ Address::Tcp { .. } => Self::Text(tcp.to_string()),
        }
    }
}

impl From<DataSource> for Item {
    fn from(source: DataSource) -> Self {
        Self::Data(source)
    }
}

impl From<Section> for Item {
    fn from(section: Section) -> Self {
        Self::Section(section)
    }
}

/// Converts sections to TOML, and collects the values that TOML cannot express.
#[derive(Default)]
pub(super) struct Writer {
    /// The bytes in memory, by the string that represents them in the text.
    pub memory: HashMap<PathBuf, InMemory>,
    /// Problems since they were last taken.
    pub unwritable: Vec<String>,
}

impl Writer {
    /// `path` is the dotted path of the table.
    pub(super) fn table(&mut self, path: &str, section: Section) -> toml::Table {
        let keys = section.0.into_iter();
        keys.map(|(key, item)| (key.to_owned(), self.value(&format!("{path}.{key}"), item)))
            .collect()
    }

    fn value(&mut self, key: &str, item: Item) -> toml::Value {
        match item {
            Item::Boolean(value) => value.into(),
            Item::Integer(number) => number.into(),
            Item::Text(text) => text.into(),
            Item::Path(path) => self.text_of(key, &path).into(),
            Item::UnixAddress(path) => format!("unix:{}", self.text_of(key, &path)).into(),
            Item::Data(DataSource(Origin::File(path))) => self.text_of(key, &path).into(),
            Item::Data(DataSource(Origin::Memory(bytes))) => {
                // The string starts with a NUL byte. No path does, and `text_of` refuses one, so it is
                // unique.
                let name = format!("\0{}", self.memory.len());
                let memory = InMemory {
                    key: key.to_owned(),
                    content: Arc::clone(&bytes),
                };
                self.memory.insert(PathBuf::from(&name), memory);
                name.into()
            }
            Item::List(items) => {
                let items = items.into_iter().enumerate();
                let values =
                    items.map(|(index, item)| self.value(&format!("{key}[{index}]"), item));
                toml::Value::Array(values.collect())
            }
            Item::Section(section) => self.table(key, section).into(),
        }
    }

    fn text_of(&mut self, key: &str, path: &Path) -> String {
        match path.to_str() {
            Some(text) if !text.contains('\0') => text.to_owned(),
            _ => {
                let problem = format!("`{key}`: the path {path:?} must be UTF-8 without NUL bytes");
                self.unwritable.push(problem);
                String::new()
            }
        }
    }
}
