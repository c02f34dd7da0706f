//! Reads TOML tables key by key and remembers every problem with its place.
//!
//! Not serde: its errors stop at the first and know neither the keys that were meant nor, inside
//! untagged values, where they are.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// The text and what was found wrong with it.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// The whole document. `None` when it is not TOML: then what is missing from it says nothing.
    pub(super) fn root(&self) -> Option<Table<'_>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problem(offset, format!("not TOML: {}", error.message().trim()));
        }
        let entries = root.into_inner();
        errors
            .is_empty()
            .then(|| Table::new(self, String::new(), entries, 0))
    }

    pub(super) fn problem(&self, offset: usize, message: String) {
        self.problems
            .borrow_mut()
            .push(Problem::at(self.text, offset, message));
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A table whose keys are taken one after the other; what is left at the end is unknown.
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    /// The dotted path with its final dot, as in `limits.`; empty at the root.
    path: String,
    entries: DeTable<'d>,
    /// Where the table starts.
    offset: usize,
    known: Vec<&'static str>,
}

/// A value and where it stands.
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    key: String,
    value: DeValue<'d>,
    pub offset: usize,
}

/// What a value must be, in words, when it is not.
type Expected = String;

impl<'d> Table<'d> {
    fn new(document: &'d Document<'d>, path: String, entries: DeTable<'d>, offset: usize) -> Self {
        Self {
            document,
            path,
            entries,
            offset,
            known: Vec::new(),
        }
    }

    /// Takes a key's value.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
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

    /// Takes a key's value and reads it; a problem is remembered, and then as if it was not given.
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

    /// As [`Table::read`], for a key that must be given.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, Expected>,
    ) -> Option<T> {
        if !self.entries.contains_key(key) {
            let table = self.path.trim_end_matches('.');
            self.problem(format!("`{table}` needs the key `{key}`"));
        }
        self.read(key, read)
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'d>> {
        self.take(key)?.into_table()
    }

    /// Takes an array of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'d>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        match value.value {
            DeValue::Array(_) => value.elements().filter_map(Value::into_table).collect(),
            _ => {
                value.problem(&format!("expected tables, each under `[[{}]]`", value.key));
                Vec::new()
            }
        }
    }

    /// Takes a key of the contract that this version does not build. It may stand there with the
    /// value that switches it off.
    pub(super) fn later(&mut self, key: &'static str, off: Option<&str>) {
        let Some(value) = self.take(key) else {
            return;
        };
        let is_off = match (&value.value, off) {
            (DeValue::String(text), Some(off)) => text == off,
            (DeValue::Boolean(false), None) => true,
            (DeValue::Array(elements), None) => elements.is_empty(),
            _ => false,
        };
        if !is_off {
            let off = off.map_or("leave it out".into(), |off| format!("only \"{off}\" is"));
            value.problem(&format!("not supported in this version; {off}"));
        }
    }

    /// Reports something about the table as a whole.
    pub(super) fn problem(&self, message: String) {
        self.problem_at(self.offset, message);
    }

    pub(super) fn problem_at(&self, offset: usize, message: String) {
        self.document.problem(offset, message);
    }

    /// Reports the keys that nobody took.
    pub(super) fn finish(self) {
        for key in self.entries.keys() {
            let Range { start, .. } = key.span();
            let unknown = format!("{}{}", self.path, key.get_ref());
            let message = match closest(key.get_ref(), &self.known) {
                Some(meant) => format!("unknown key `{unknown}`, did you mean `{meant}`?"),
                None => format!(
                    "unknown key `{unknown}`; known here: {}",
                    self.known.join(", ")
                ),
            };
            self.document.problem(start, message);
        }
    }
}

impl<'d> Value<'d> {
    pub(super) fn problem(&self, expected: &str) {
        self.document
            .problem(self.offset, format!("`{}`: {expected}", self.key));
    }

    pub(super) fn into_table(self) -> Option<Table<'d>> {
        let Self {
            document,
            key,
            value,
            offset,
        } = self;
        match value {
            DeValue::Table(entries) => {
                Some(Table::new(document, format!("{key}."), entries, offset))
            }
            other => {
                document.problem(
                    offset,
                    format!("`{key}`: expected a table, found {}", found(&other)),
                );
                None
            }
        }
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> impl Iterator<Item = Value<'d>> {
        let elements: &[Spanned<DeValue<'d>>] = match &self.value {
            DeValue::Array(elements) => elements,
            _ => &[],
        };
        elements.iter().map(|element| Value {
            document: self.document,
            key: self.key.clone(),
            offset: element.span().start,
            value: element.get_ref().clone(),
        })
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub(super) fn string(&self) -> Result<&str, Expected> {
        match &self.value {
            DeValue::String(text) => Ok(text),
            other => Err(format!("expected a string, found {}", found(other))),
        }
    }

    /// A string that `parse` makes something of.
    pub(super) fn parsed<T, E: ToString>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Expected> {
        let text = self.string()?;
        parse(text).map_err(|error| format!("{text:?}: {}", error.to_string()))
    }

    pub(super) fn boolean(&self) -> Result<bool, Expected> {
        match self.value {
            DeValue::Boolean(value) => Ok(value),
            ref other => Err(format!("expected true or false, found {}", found(other))),
        }
    }

    /// A whole number from 1 to `u32::MAX`.
    pub(super) fn count(&self) -> Result<usize, Expected> {
        let number = match &self.value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            other => return Err(format!("expected a whole number, found {}", found(other))),
        };
        match number {
            Some(0) => Err("0 is refused, so that it cannot be mistaken for no limit".into()),
            Some(number) => Ok(number as usize),
            None => Err(format!("expected a whole number from 1 to {}", u32::MAX)),
        }
    }

    /// A user or group id.
    pub(super) fn system_id(&self) -> Result<u32, Expected> {
        match &self.value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| format!("expected a number from 0 to {}", u32::MAX)),
            other => Err(format!("expected a numeric id, found {}", found(other))),
        }
    }

    /// A duration above zero.
    pub(super) fn duration(&self) -> Result<Duration, Expected> {
        const EXPECTED: &str = "expected a duration such as \"10s\", \"500ms\" or \"1h\"";
        let DeValue::String(text) = &self.value else {
            return Err(format!("{EXPECTED}, found {}", found(&self.value)));
        };
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err("0 is refused; \"unlimited\" turns it off".into()),
            Ok(duration) => Ok(duration),
            Err(_) => Err(format!("{EXPECTED}, found {text:?}")),
        }
    }

    /// What `read` reads, or `None` for the words that mean off.
    pub(super) fn or_off<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Expected>,
    ) -> Result<Option<T>, Expected> {
        match &self.value {
            DeValue::String(word) if word == "unlimited" || word == "none" => Ok(None),
            _ => match read(self) {
                Ok(value) => Ok(Some(value)),
                Err(expected) if expected.contains("unlimited") => Err(expected),
                Err(expected) => Err(format!("{expected} (\"unlimited\" turns it off)")),
            },
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Expected> {
        let text = self.string()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(match closest(text, &known) {
            Some(meant) => format!("unknown value {text:?}, did you mean {meant:?}?"),
            None => format!("unknown value {text:?}; one of: {}", known.join(", ")),
        })
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known word that was probably meant: at most a third of its letters differ.
fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}
