//! Reads PEM files as they occur in practice: every block, or an error that says which one is wrong
//! and in which line.
//!
//! Files are assembled by hand, by `cat`, by Windows and by OpenSSL. This module normalizes the
//! text, and passes each block to rustls-pemfile separately, so that no block is skipped.

mod gap;

use std::fmt;

use rustls_pemfile::{Item, read_one_from_slice};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};

use self::gap::Gap;
use super::x509::parse;

/// The blocks of one file, in order.
#[derive(Debug)]
pub(crate) struct Pem {
    blocks: Vec<Block>,
    /// What the content may be if it is not text.
    binary: Option<Binary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Der,
    /// A chain and its key, encrypted with a password (RFC 7292 §4).
    Pkcs12,
}

impl Binary {
    fn of(content: &[u8]) -> Option<Self> {
        let [DER_SEQUENCE, length, rest @ ..] = content else {
            return None;
        };
        let more_length = match length {
            // Text may begin with the same byte.
            0..0x80 if usize::from(*length) != rest.len() => return None,
            0..0x80 => 0,
            0x80..=0x84 => usize::from(length & 0x7f),
            _ => return None,
        };
        // Certificates and lists begin with another SEQUENCE; this one begins with its version.
        match rest.get(more_length..) {
            Some([DER_INTEGER, 1, 3, ..]) => Some(Self::Pkcs12),
            _ => Some(Self::Der),
        }
    }
}

#[derive(Debug)]
struct Block {
    content: Content,
    /// Counted from 1.
    line: usize,
}

#[derive(Debug)]
enum Content {
    Item(Item),
    EncryptedKey,
    /// Known to occur beside keys and certificates, and not needed here.
    Other(String),
}

/// The position of a block: its number among blocks of its type, and its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub nth: usize,
    pub line: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} in line {}", self.nth, self.line)
    }
}

/// A certificate in a file.
pub(crate) type Located = (CertificateDer<'static>, Position);

impl Pem {
    /// # Errors
    ///
    /// A `-----BEGIN` line whose block cannot be read.
    pub(crate) fn read(content: &[u8]) -> Result<Self, PemError> {
        let text = text(content);
        let mut rest = Rest {
            text: &text,
            at: 0,
            counted: (0, 1),
        };
        let binary = Binary::of(content);
        let mut blocks = Vec::new();
        while let Some(block) = rest.block(binary)? {
            blocks.push(block);
        }
        Ok(Self { blocks, binary })
    }

    /// Whether the file may be a revocation list in DER.
    pub(crate) fn is_binary(&self) -> bool {
        self.blocks.is_empty() && self.binary == Some(Binary::Der)
    }

    pub(crate) fn certificates(&self) -> Vec<Located> {
        let certificates = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::X509Certificate(der)) => Some((der.clone(), block.line)),
            _ => None,
        });
        let place = |(index, (der, line))| {
            (
                der,
                Position {
                    nth: index + 1,
                    line,
                },
            )
        };
        certificates.enumerate().map(place).collect()
    }

    /// The line of the first certificate block that is not a certificate.
    pub(crate) fn no_certificate(&self) -> Option<usize> {
        let mut certificates = self.certificates().into_iter();
        let found = certificates.find(|(der, _)| parse(der).is_err());
        found.map(|(_, position)| position.line)
    }

    /// The revocation lists, each with its first line.
    pub(crate) fn lists(&self) -> Vec<(CertificateRevocationListDer<'static>, usize)> {
        let lists = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::Crl(der)) => Some((der.clone(), block.line)),
            _ => None,
        });
        lists.collect()
    }

    pub(crate) fn keys(&self) -> Vec<PrivateKeyDer<'static>> {
        let keys = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::Pkcs1Key(key)) => Some(key.clone_key().into()),
            Content::Item(Item::Pkcs8Key(key)) => Some(key.clone_key().into()),
            Content::Item(Item::Sec1Key(key)) => Some(key.clone_key().into()),
            _ => None,
        });
        keys.collect()
    }

    /// The line of the first key that is encrypted with a password.
    pub(crate) fn encrypted_key(&self) -> Option<usize> {
        let is_encrypted = |block: &&Block| matches!(block.content, Content::EncryptedKey);
        self.blocks
            .iter()
            .find(is_encrypted)
            .map(|block| block.line)
    }

    /// The content of the file in words, by its first block.
    pub(crate) fn holds(&self) -> String {
        match self.blocks.first().map(|block| &block.content) {
            None if self.binary == Some(Binary::Der) => {
                "DER (convert a certificate to PEM with `openssl x509 -inform DER`)".into()
            }
            None if self.binary == Some(Binary::Pkcs12) => {
                "PKCS#12 (convert it to PEM with `openssl pkcs12 -nodes`)".into()
            }
            None => "nothing that starts with -----BEGIN".into(),
            Some(Content::EncryptedKey) => "an encrypted private key".into(),
            Some(Content::Other(label)) => format!("{label:?}"),
            Some(Content::Item(item)) => match item {
                Item::X509Certificate(_) => "a certificate",
                Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "a private key",
                Item::SubjectPublicKeyInfo(_) => "a public key",
                Item::Crl(_) => "a revocation list",
                Item::Csr(_) => "a request for a certificate",
                _ => "something else",
            }
            .into(),
        }
    }
}

/// The part of the text that was not read yet.
struct Rest<'a> {
    text: &'a str,
    at: usize,
    /// A position and its line, so that a large file is counted only once.
    counted: (usize, usize),
}

impl<'a> Rest<'a> {
    fn block(&mut self, binary: Option<Binary>) -> Result<Option<Block>, PemError> {
        let text: &'a str = self.text;
        let rest = &text[self.at..];
        let begin = rest.find(BEGIN);
        // The `-----BEGIN` line is missing or misspelt.
        if let Some(end) = rest[..begin.unwrap_or(rest.len())].find(END) {
            return Err(PemError::NoBegin(self.line(self.at + end)));
        }
        let gap = &rest[..begin.unwrap_or(rest.len())];
        // A file that is completely in DER is handled elsewhere.
        let is_text = binary.is_none() || begin.is_some() || self.at > 0;
        if is_text && let Some((at, what)) = gap::suspicious(gap) {
            return Err(PemError::Gap(self.line(self.at + at), what));
        }
        let Some(begin) = begin else {
            return Ok(None);
        };
        let line = self.line(self.at + begin);
        let (label, body) = label(&rest[begin + BEGIN.len()..]).ok_or(PemError::Begin(line))?;
        let unended = || PemError::NoEnd(line, label.to_owned());
        let end = body.find(END).ok_or_else(unended)?;
        if body[..end].contains(BEGIN) {
            return Err(unended());
        }
        let (body, behind) = (&body[..end], &body[end + END.len()..]);
        let (ended, behind) = self::label(behind).unwrap_or(("", behind));
        if ended != label {
            return Err(PemError::Mismatch(line, label.to_owned(), ended.to_owned()));
        }
        self.at = self.text.len() - behind.len();
        let content =
            content(label, body).map_err(|why| PemError::Content(line, label.to_owned(), why))?;
        match &content {
            Content::Other(label) if !HARMLESS.contains(&label.as_str()) => {
                Err(PemError::Label(line, label.clone(), advice(label)))
            }
            _ => Ok(Some(Block { content, line })),
        }
    }

    fn line(&mut self, at: usize) -> usize {
        let (from, line) = self.counted;
        let line = line + self.text[from..at].matches('\n').count();
        self.counted = (at, line);
        line
    }
}

/// The text between the space and `-----`, and the rest behind it.
fn label(text: &str) -> Option<(&str, &str)> {
    let line = text.split('\n').next()?;
    let (label, _) = line.strip_prefix(' ')?.split_once(DASHES)?;
    let behind = &text[1 + label.len() + DASHES.len()..];
    Some((label.trim(), behind))
}

/// What to do about a block with an unknown label.
fn advice(label: &str) -> &'static str {
    let is_about = |word: &str| label.to_uppercase().contains(word);
    if is_about("PKCS7") || is_about("PKCS #7") || is_about("CMS") {
        "extract its certificates with `openssl pkcs7 -print_certs`"
    } else if is_about("OPENSSH") {
        "convert a copy of it with `ssh-keygen -p -m PKCS8`"
    } else if is_about("CRL") {
        "the label of a revocation list is X509 CRL"
    } else {
        "known labels are CERTIFICATE, X509 CRL, PRIVATE KEY and their older names"
    }
}

fn content(label: &str, body: &str) -> Result<Content, String> {
    let (headers, data) = headers(body);
    if label == "ENCRYPTED PRIVATE KEY" || headers.contains("ENCRYPTED") {
        return Ok(Content::EncryptedKey);
    }
    let usual = match label {
        "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => "CERTIFICATE",
        label => label,
    };
    let block = format!("{BEGIN} {usual}{DASHES}\n{data}\n{END} {usual}{DASHES}\n");
    let item = read_one_from_slice(block.as_bytes()).map_err(|error| match error {
        rustls_pemfile::Error::Base64Decode(why) => format!("is not base64 ({why})"),
        other => format!("cannot be read ({other:?})"),
    })?;
    Ok(match item {
        Some((Item::X509Certificate(der), _)) if label == "TRUSTED CERTIFICATE" => {
            Content::Item(Item::X509Certificate(without_trust(&der)))
        }
        Some((item, _)) => Content::Item(item),
        None => Content::Other(label.to_owned()),
    })
}

/// Headers (RFC 1421 §4.4) end with an empty line. Base64 has no colon.
fn headers(body: &str) -> (String, String) {
    let mut lines = body.lines().map(str::trim).peekable();
    while lines.next_if(|line| line.is_empty()).is_some() {}
    let mut headers = String::new();
    let mut is_header = lines.peek().is_some_and(|line| line.contains(':'));
    let mut data = String::new();
    for line in lines {
        if is_header && line.is_empty() {
            is_header = false;
        } else if is_header {
            headers.push_str(line);
        } else {
            data.extend(line.split_whitespace());
        }
    }
    (headers, data)
}

/// OpenSSL appends to a `TRUSTED CERTIFICATE` what it is trusted for.
fn without_trust(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    use der::Reader;
    let first = der::SliceReader::new(der).and_then(|mut both| both.tlv_bytes());
    first.unwrap_or(der).to_vec().into()
}

/// With one kind of line end and without byte order marks, also in the middle of concatenated
/// files. Bag attributes may have any encoding.
fn text(content: &[u8]) -> String {
    let text = match content {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        _ => String::from_utf8_lossy(content).into_owned(),
    };
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\u{feff}', "")
}

/// The encoding that PowerShell writes.
fn utf_16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|it| unit([it[0], it[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

/// Why a file cannot be read. The messages contain nothing of its content, which may be a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("line {0} starts with `-----BEGIN` but is not `-----BEGIN LABEL-----`")]
    Begin(usize),
    #[error("line {0} has `-----END` without a `-----BEGIN` before it")]
    NoBegin(usize),
    #[error(
        "the block in line {0} (-----BEGIN {1}-----) has no -----END {1}-----; check whether the \
         file is complete"
    )]
    NoEnd(usize, String),
    #[error("the block in line {0} begins with the label {1:?} and ends with {2:?}")]
    Mismatch(usize, String, String),
    #[error("the block in line {0} (-----BEGIN {1}-----) {2}; copy it again")]
    Content(usize, String, String),
    #[error("the block in line {0} has an unknown label (-----BEGIN {1}-----); {2}")]
    Label(usize, String, &'static str),
    #[error("line {0} {1}")]
    Gap(usize, Gap),
}

/// Blocks that occur beside keys and certificates, and can safely be skipped.
const HARMLESS: [&str; 7] = [
    "EC PARAMETERS",
    "DH PARAMETERS",
    "X9.42 DH PARAMETERS",
    "DSA PARAMETERS",
    "ATTRIBUTE CERTIFICATE",
    "RSA PUBLIC KEY",
    "NEW CERTIFICATE REQUEST",
];

const BEGIN: &str = "-----BEGIN";
const END: &str = "-----END";
const DASHES: &str = "-----";
/// The first byte of every certificate, key and list in DER. No text begins with it.
const DER_SEQUENCE: u8 = 0x30;
const DER_INTEGER: u8 = 0x02;

#[cfg(test)]
mod tests;
