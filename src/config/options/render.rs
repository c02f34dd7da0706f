//! Writes options as the text of a configuration, so that one decoder checks both.

use std::collections::HashMap;
use std::path::PathBuf;

use super::ConfigBuilder;
use super::section::{Section, Writer};
use crate::config::files::InMemory;
use crate::config::parts::Parts;
use crate::config::problem::ConfigError;

/// The input of the decoder.
pub(super) struct Rendered {
    pub text: String,
    pub parts: Parts,
    pub memory: HashMap<PathBuf, InMemory>,
}

/// # Errors
///
/// A value that cannot be written in TOML.
pub(super) fn render(builder: ConfigBuilder) -> Result<Rendered, ConfigError> {
    let ConfigBuilder {
        runtime,
        limits,
        timeouts,
        gate,
        admin,
        audit,
        listeners,
        routes,
        backends,
        joins,
    } = builder;
    let mut renderer = Renderer::default();
    let tables = [
        ("runtime", runtime),
        ("limits", limits),
        ("timeouts", timeouts),
        ("gate", gate),
        ("admin", admin),
        ("audit", audit),
    ];
    for (key, section) in tables {
        if let Some(section) = section {
            renderer.add(key, section, None, Kind::Table);
        }
    }
    for (key, sections) in [
        ("listener", listeners),
        ("route", routes),
        ("backend", backends),
        ("join", joins),
    ] {
        for (index, section) in sections.into_iter().enumerate() {
            let name = match section.text("name") {
                Some(name) => format!("{key} {name:?}"),
                None => format!("{key}[{index}]"),
            };
            renderer.add(key, section, Some(name), Kind::Element);
        }
    }
    renderer.finish()
}

struct Renderer {
    text: String,
    parts: Parts,
    writer: Writer,
    unwritable: Vec<String>,
}

#[derive(Clone, Copy)]
enum Kind {
    Table,
    /// An element of an array of tables.
    Element,
}

impl Default for Renderer {
    fn default() -> Self {
        let mut parts = Parts::default();
        // A problem of the whole configuration is reported for the first line.
        parts.push(1, None);
        Self {
            text: "\n".into(),
            parts,
            writer: Writer::default(),
            unwritable: Vec::new(),
        }
    }
}

impl Renderer {
    fn add(&mut self, key: &str, section: Section, name: Option<String>, kind: Kind) {
        let table = self.writer.table(key, section);
        let of_part = |problem| match &name {
            Some(name) => format!("{name}: {problem}"),
            None => problem,
        };
        let unwritable = self.writer.unwritable.drain(..).map(of_part);
        self.unwritable.extend(unwritable);
        let value = match kind {
            Kind::Table => toml::Value::Table(table),
            Kind::Element => vec![table].into(),
        };
        let line = self.text.matches('\n').count() + 1;
        self.parts.push(line, name);
        let document = toml::Table::from_iter([(key.to_owned(), value)]);
        self.text.push_str(&document.to_string());
    }

    fn finish(self) -> Result<Rendered, ConfigError> {
        if !self.unwritable.is_empty() {
            return Err(ConfigError::unwritable(&self.unwritable));
        }
        Ok(Rendered {
            text: self.text,
            parts: self.parts,
            memory: self.writer.memory,
        })
    }
}
