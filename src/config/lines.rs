//! Line and column of a byte in a text, as an editor counts them.

use std::iter::once;

/// The lines of a text. They are found once, so that each look-up is a binary search: a file may have a
/// problem in each of its lines.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// The offset where each line starts. The first is 0.
    starts: Vec<usize>,
}

/// A line and a column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    /// Counted in characters.
    pub column: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self {
            text,
            starts: once(0).chain(newlines).collect(),
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The place of a byte offset. An offset inside a character, or after the end, counts as the end of
    /// the text.
    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = match self.text.is_char_boundary(offset) {
            true => offset,
            false => self.text.len(),
        };
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = &self.text[self.starts[line - 1]..offset];
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }
}

impl Place {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_as_counted_from_the_start() {
        for text in [
            "",
            "a",
            "\n",
            "\n\n",
            "a\nb",
            "a\r\nb\n",
            "ü = \"日本\"\n\n# 𝄞\nb",
            "日\n",
        ] {
            let lines = Lines::of(text);
            // Includes offsets inside characters and after the end.
            for offset in 0..text.len() + 3 {
                assert_eq!(
                    lines.place(offset),
                    counted(text, offset),
                    "{text:?} {offset}"
                );
            }
        }
    }

    fn counted(text: &str, offset: usize) -> Place {
        let mut place = Place::START;
        for c in text.get(..offset).unwrap_or(text).chars() {
            match c {
                '\n' => (place.line, place.column) = (place.line + 1, 1),
                _ => place.column += 1,
            }
        }
        place
    }
}
