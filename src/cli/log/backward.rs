//! Reads the lines of a file from its end, in blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The lines of a file, the last one first.
pub(super) struct Backward {
    file: File,
    /// The bytes of the file before this one are not read yet.
    at: u64,
    /// What follows in the file; the first `end` bytes were not returned yet.
    buffer: Vec<u8>,
    end: usize,
    /// The bytes from here to `end` have no newline.
    searched: usize,
    /// Whether the line before `end` is longer than [`LONGEST_LINE`], and is skipped.
    is_overlong: bool,
}

impl Backward {
    /// The lines that the file has now.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let at = file.metadata()?.len();
        Ok(Self {
            file,
            at,
            buffer: Vec::new(),
            end: 0,
            searched: 0,
            is_overlong: false,
        })
    }

    /// Skips what follows the last newline: a line that is being written. Returns where it begins.
    pub(super) fn skip_unfinished(&mut self) -> io::Result<u64> {
        let length = self.at;
        let unfinished = self.next_line()?.map_or(0, <[u8]>::len);
        Ok(length - unfinished as u64)
    }

    /// The next line towards the beginning of the file, without its newline.
    pub(super) fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let newline = self.buffer[..self.searched]
                .iter()
                .rposition(|it| *it == b'\n');
            if let Some(newline) = newline {
                let line = newline + 1..self.end;
                (self.end, self.searched) = (newline, newline);
                match std::mem::take(&mut self.is_overlong) {
                    true => continue,
                    false => return Ok(Some(&self.buffer[line])),
                }
            }
            self.searched = 0;
            if self.at == 0 {
                let line = ..std::mem::take(&mut self.end);
                let is_line = line.end > 0 && !self.is_overlong;
                return Ok(is_line.then(|| &self.buffer[line]));
            }
            if self.end > LONGEST_LINE {
                (self.end, self.is_overlong) = (0, true);
            }
            self.read_block()?;
        }
    }

    /// Puts the block before `at` in front of what is left in the buffer.
    fn read_block(&mut self) -> io::Result<()> {
        let size = self.at.min(BLOCK) as usize;
        self.at -= size as u64;
        let mut buffer = vec![0; size + self.end];
        self.file.read_exact_at(&mut buffer[..size], self.at)?;
        buffer[size..].copy_from_slice(&self.buffer[..self.end]);
        (self.buffer, self.end, self.searched) = (buffer, size + self.end, size);
        Ok(())
    }
}

/// Some hundred lines. Larger blocks read more than a few lines need, smaller ones cost more calls.
const BLOCK: u64 = 128 * 1024;

/// No event has a line of this length. Without a bound, a file without newlines would use up the memory.
const LONGEST_LINE: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(content: &[u8]) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("room");
        let mut backward = Backward::new(file).expect("a file");
        let mut lines = Vec::new();
        while let Some(line) = backward.next_line().expect("a file") {
            lines.push(line.to_owned());
        }
        lines.reverse();
        lines
    }

    #[test]
    fn all_lines_are_found_whatever_their_length() {
        let block = BLOCK as usize;
        for length in [0, 1, 100, block - 1, block, block + 1, 3 * block + 7] {
            for last in ["", "unfinished"] {
                let expected: Vec<Vec<u8>> = (0..5u8)
                    .map(|number| vec![b'a' + number; length + usize::from(number % 2)])
                    .chain([last.into()])
                    .collect();
                let found = lines(&expected.join(&b'\n'));
                // The piece behind the last newline comes first, even if it is empty.
                let expected = match (length, last) {
                    // Nothing is in front of the first newline.
                    (0, _) => &expected[1..],
                    _ => &expected[..],
                };
                assert!(found == expected, "{length} {last:?}: {}", found.len());
            }
        }
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_without_end_is_skipped_in_bounded_memory() {
        let mut content = b"first\n".to_vec();
        content.resize(content.len() + 2 * LONGEST_LINE, 0);
        content.extend(b"\nlast\n");
        let expected: [&[u8]; 3] = [b"first", b"last", b""];
        assert!(lines(&content) == expected);
    }
}
