//! Reads TOML tables key by key, and records every problem with its place.
//!
//! This does not use serde: serde stops at the first error, does not suggest the key that was probably
//! meant, and loses the place inside untagged values.

use std::cell::RefCell;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::value::{Expected, Value, closest, found};

/// A table whose keys are taken one after the other. Keys that are left at the end are unknown.
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    /// The dotted path with a final dot, as in `limits.`. Empty for the root.
    path: String,
    entries: DeTable<'d>,
    /// The byte offset where the table starts.
    offset: usize,
    /// Keys that were taken or looked for: candidates when an unknown key was probably meant as one of
    /// them.
    known: RefCell<Vec<&'static str>>,
}

impl<'d> Table<'d> {
    /// The whole document. `None` if it is not TOML: then missing keys would not be worth a report.
    pub(super) fn root(document: &'d Document<'_>) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(document.text());
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            document.problem(offset, format!("not TOML: {}", error.message().trim()));
        }
        let entries = root.into_inner();
        errors
            .is_empty()
            .then(|| Self::new(document, String::new(), entries, 0))
    }

    pub(super) fn new(
        document: &'d Document<'d>,
        path: String,
        entries: DeTable<'d>,
        offset: usize,
    ) -> Self {
        Self {
            document,
            path,
            entries,
            offset,
            known: RefCell::default(),
        }
    }

    /// The value as a table. Reports a problem if it is not one.
    pub(super) fn of(value: Value<'d>) -> Option<Self> {
        let Value {
            document,
            key,
            value,
            offset,
        } = value;
        match value {
            DeValue::Table(entries) => {
                Some(Self::new(document, format!("{key}."), entries, offset))
            }
            other => {
                document.problem(
                    offset,
                    format!(
                        "`{key}`: expected a table, as under `[{key}]`, found {}",
                        found(&other)
                    ),
                );
                None
            }
        }
    }

    /// Takes the value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.knows(key);
        let value = self.entries.remove(key)?;
        let Range { start, .. } = value.span();
        let key = format!("{}{key}", self.path);
        Some(Value {
            document: self.document,
            key,
            value: value.into_inner(),
            offset: start,
        })
    }

    /// Takes and reads the value of a key. After a problem was reported, the key counts as missing.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, Expected>,
    ) -> Option<T> {
        let value = self.take(key)?;
        read(&value)
            .map_err(|expected| value.problem(&expected))
            .ok()
    }

    /// As [`Table::read`], for a required key.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, Expected>,
    ) -> Option<T> {
        self.needs(key);
        self.read(key, read)
    }

    /// Whether the key is there and was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The dotted path with a final dot, as in `limits.`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The byte offset where the table starts.
    pub(super) fn start(&self) -> usize {
        self.offset
    }

    /// Names a table at a place in the text.
    pub(super) fn which(&self, kind: &str, offset: usize) -> String {
        self.document.which(kind, offset)
    }

    /// The offset of a key's value, if it was not taken yet.
    pub(super) fn place(&self, key: &'static str) -> Option<usize> {
        self.knows(key);
        self.entries.get(key).map(|value| value.span().start)
    }

    /// As [`Table::place`], for a required key.
    pub(super) fn needs(&self, key: &'static str) -> Option<usize> {
        let place = self.place(key);
        if place.is_none() {
            let table = self.path.trim_end_matches('.');
            self.problem(format!("`{table}` needs the key `{key}`"));
        }
        place
    }

    /// As [`Table::read`], for a key with one value or a list of values. Each wrong value is reported
    /// at its own place.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value<'d>) -> Result<T, Expected>,
    ) -> Option<Vec<T>> {
        let read = |value: &Value<'d>| {
            read(value)
                .map_err(|expected| value.problem(&expected))
                .ok()
        };
        let value = self.take(key)?;
        if !value.is_array() {
            return Some(vec![read(&value)?]);
        }
        let elements: Vec<Option<T>> = value.elements().map(|element| read(&element)).collect();
        elements.into_iter().collect()
    }

    /// As [`Table::list`], for a condition on connections. An empty list would match nothing; it is
    /// refused, because users may expect that it matches everything.
    pub(super) fn any_of<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value<'d>) -> Result<T, Expected>,
    ) -> Option<Vec<T>> {
        let place = self.place(key);
        let list = self.list(key, read)?;
        if list.is_empty() {
            let message = format!(
                "`{}{key}`: an empty list matches nothing; leave the key out to match everything",
                self.path
            );
            self.problem_at(place?, message);
            return None;
        }
        Some(list)
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'d>> {
        Self::of(self.take(key)?)
    }

    /// Takes an array of tables. `None` only after a problem was reported.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<Vec<Table<'d>>> {
        let example = format!("as under `[[{}{key}]]`", self.path);
        self.tables_such_as(key, &example)
    }

    /// As [`Table::tables`], with an example of the syntax for messages.
    pub(super) fn tables_such_as(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<Table<'d>>> {
        let Some(value) = self.take(key) else {
            return Some(Vec::new());
        };
        if !value.is_array() {
            value.problem(&format!(
                "expected a list of tables, {example}, found {}",
                found(&value.value)
            ));
            return None;
        }
        let table = |element: Value<'d>| {
            if !element.is_table() {
                let found = found(&element.value);
                element.problem(&format!("expected a table, {example}, found {found}"));
                return None;
            }
            Self::of(element)
        };
        let tables: Vec<Option<Table<'d>>> = value.elements().map(table).collect();
        tables.into_iter().collect()
    }

    /// Reports keys of other programs or other tables, with what to write instead.
    pub(super) fn foreign(&mut self, keys: &[&str], instead: &str) {
        for key in keys {
            if let Some((written, _)) = self.entries.remove_entry(*key) {
                let message = format!("`{}{key}`: {instead}", self.path);
                self.document.problem(written.span().start, message);
            }
        }
    }

    fn knows(&self, key: &'static str) {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
    }

    /// Reports a problem of the table as a whole.
    pub(super) fn problem(&self, message: String) {
        self.problem_at(self.offset, message);
    }

    pub(super) fn problem_at(&self, offset: usize, message: String) {
        self.document.problem(offset, message);
    }

    pub(super) fn warn_at(&self, offset: usize, message: String) {
        self.document.warn(offset, message);
    }

    pub(super) fn unready_at(&self, offset: usize, message: String) {
        self.document.unready(offset, message);
    }

    /// Records the host where a listener will bind.
    pub(super) fn bound_at(&self, offset: usize, host: &str) {
        self.document.bound(offset, host);
    }

    pub(super) fn expired_at(&self, offset: usize, message: String) {
        self.document.expired(offset, message);
    }

    /// Reports the keys that were not taken.
    pub(super) fn finish(self) {
        let known = self.known.take();
        for key in self.entries.keys() {
            let Range { start, .. } = key.span();
            let unknown = format!("{}{}", self.path, key.get_ref());
            let message = match closest(key.get_ref(), &known) {
                Some(meant) => format!("unknown key `{unknown}`, did you mean `{meant}`?"),
                None => format!("unknown key `{unknown}`; known here: {}", known.join(", ")),
            };
            self.document.problem(start, message);
        }
    }
}
