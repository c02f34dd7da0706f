//! The signed part of a revocation list.

use std::collections::HashSet;
use std::time::SystemTime;

use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::{ListError, malformed};
use crate::tls::signed::oid;
use crate::tls::time::system_time;

/// The signed part, parsed.
pub(super) struct Parsed<'a> {
    pub issuer: &'a [u8],
    pub this_update: SystemTime,
    pub next_update: Option<SystemTime>,
    pub revoked: HashSet<Box<[u8]>>,
    pub key_identifier: Option<Box<[u8]>>,
}

impl<'a> Parsed<'a> {
    pub(super) fn read(der: &'a [u8], algorithm: &[u8]) -> Result<Self, ListError> {
        let mut fields = content(der)?;
        let version = match peek(&fields) {
            Some(Tag::Integer) => AnyRef::decode(&mut fields).map_err(malformed)?.value(),
            _ => &[],
        };
        let extensions = match version {
            [] => Extensions::Forbidden,
            [1] => Extensions::Allowed,
            _ => {
                return Err(ListError::Malformed(
                    "its version is neither 1 nor 2".into(),
                ));
            }
        };
        if fields.tlv_bytes().map_err(malformed)? != algorithm {
            let why = "it names two different signature algorithms";
            return Err(ListError::Malformed(why.into()));
        }
        let issuer = fields.tlv_bytes().map_err(malformed)?;
        let this_update = time(&mut fields)?;
        let next_update = match peek(&fields) {
            Some(Tag::UtcTime | Tag::GeneralizedTime) => Some(time(&mut fields)?),
            _ => None,
        };
        let revoked = match peek(&fields) {
            Some(Tag::Sequence) => {
                let entries = fields.tlv_bytes().map_err(malformed)?;
                entries_of(entries, extensions)?
            }
            _ => HashSet::new(),
        };
        let key_identifier = match peek(&fields) {
            Some(EXTENSIONS) => of_list(fields.tlv_bytes().map_err(malformed)?, extensions)?,
            _ => None,
        };
        finished(&fields)?;
        Ok(Self {
            issuer,
            this_update,
            next_update,
            revoked,
            key_identifier,
        })
    }
}

/// Whether a list of its version may have extensions (RFC 5280 §5.1.2.1).
#[derive(Clone, Copy, PartialEq)]
enum Extensions {
    Allowed,
    Forbidden,
}

fn entries_of(der: &[u8], extensions: Extensions) -> Result<HashSet<Box<[u8]>>, ListError> {
    let mut entries = content(der)?;
    let mut revoked = HashSet::new();
    while !entries.is_finished() {
        let mut fields = content(entries.tlv_bytes().map_err(malformed)?)?;
        let serial = AnyRef::decode(&mut fields).map_err(malformed)?;
        if serial.tag() != Tag::Integer {
            let why = format!("an entry begins with {}, not with a number", serial.tag());
            return Err(ListError::Malformed(why));
        }
        time(&mut fields)?;
        if !fields.is_finished() {
            let der = fields.tlv_bytes().map_err(malformed)?;
            for extension in each(der, extensions)? {
                extension.of_entry()?;
            }
        }
        finished(&fields)?;
        revoked.insert(magnitude(serial.value()).into());
    }
    Ok(revoked)
}

/// The identifier of the key that signed it, from the extensions of the list.
fn of_list(der: &[u8], extensions: Extensions) -> Result<Option<Box<[u8]>>, ListError> {
    let inner = AnyRef::from_der(der).map_err(malformed)?.value();
    let mut key_identifier = None;
    for extension in each(inner, extensions)? {
        match extension.oid {
            DELTA => return Err(ListError::Delta),
            DISTRIBUTION_POINT => distribution_point(extension.value)?,
            KEY_IDENTIFIER => {
                let mut fields = content(extension.value)?;
                // Only the field [0] identifies the key.
                if let Some(Tag::ContextSpecific { number, .. }) = peek(&fields)
                    && number == TagNumber(0)
                {
                    let value = AnyRef::decode(&mut fields).map_err(malformed)?;
                    key_identifier = Some(value.value().into());
                }
            }
            NUMBER => {}
            _ => extension.ensure_optional()?,
        }
    }
    Ok(key_identifier)
}

/// RFC 5280 §5.2.5. A list that covers only a part of the certificates is accepted: every entry in
/// it is revoked.
fn distribution_point(der: &[u8]) -> Result<(), ListError> {
    let mut fields = content(der)?;
    while !fields.is_finished() {
        let field = AnyRef::decode(&mut fields).map_err(malformed)?;
        let Tag::ContextSpecific { number, .. } = field.tag() else {
            return Err(ListError::Malformed("its distribution point".into()));
        };
        let is_set = field.value() != [0];
        match number.value() {
            4 if is_set => return Err(ListError::Indirect),
            5 if is_set => return Err(ListError::OfAttributes),
            _ => {}
        }
    }
    Ok(())
}

struct Extension<'a> {
    oid: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

impl Extension<'_> {
    fn of_entry(&self) -> Result<(), ListError> {
        match self.oid {
            CERTIFICATE_ISSUER => Err(ListError::Indirect),
            REASON | HOLD | INVALIDITY => Ok(()),
            _ => self.ensure_optional(),
        }
    }

    /// An unknown critical extension may change the meaning of the list (RFC 5280 §5.2).
    fn ensure_optional(&self) -> Result<(), ListError> {
        match self.is_critical {
            true => Err(ListError::Critical(oid(self.oid))),
            false => Ok(()),
        }
    }
}

fn each(der: &[u8], extensions: Extensions) -> Result<Vec<Extension<'_>>, ListError> {
    if extensions == Extensions::Forbidden {
        let why = "it has extensions that its version does not allow";
        return Err(ListError::Malformed(why.into()));
    }
    let mut all = content(der)?;
    let mut read = Vec::new();
    while !all.is_finished() {
        let mut fields = content(all.tlv_bytes().map_err(malformed)?)?;
        let oid = AnyRef::decode(&mut fields).map_err(malformed)?.value();
        let is_critical = match peek(&fields) {
            Some(Tag::Boolean) => AnyRef::decode(&mut fields).map_err(malformed)?.value() != [0],
            _ => false,
        };
        let value = AnyRef::decode(&mut fields).map_err(malformed)?.value();
        finished(&fields)?;
        read.push(Extension {
            oid,
            is_critical,
            value,
        });
    }
    Ok(read)
}

/// The content of a SEQUENCE without trailing bytes.
fn content(der: &[u8]) -> Result<SliceReader<'_>, ListError> {
    let outer = AnyRef::from_der(der).map_err(malformed)?;
    outer.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
    SliceReader::new(outer.value()).map_err(malformed)
}

fn peek(fields: &SliceReader<'_>) -> Option<Tag> {
    match fields.is_finished() {
        true => None,
        false => Tag::peek(fields).ok(),
    }
}

fn finished(fields: &SliceReader<'_>) -> Result<(), ListError> {
    match fields.is_finished() {
        true => Ok(()),
        false => Err(ListError::Malformed("it has an extra field".into())),
    }
}

fn time(fields: &mut SliceReader<'_>) -> Result<SystemTime, ListError> {
    let der = fields.tlv_bytes().map_err(malformed)?;
    let (_, time) = ASN1Time::from_der(der).map_err(malformed)?;
    Ok(system_time(time))
}

/// A number without leading zeros: authorities write different numbers of them.
pub(super) fn magnitude(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

const EXTENSIONS: Tag = Tag::ContextSpecific {
    constructed: true,
    number: TagNumber(0),
};
/// 2.5.29.x, the prefix of all extensions here.
const NUMBER: &[u8] = &[0x55, 0x1d, 20];
const REASON: &[u8] = &[0x55, 0x1d, 21];
const HOLD: &[u8] = &[0x55, 0x1d, 23];
const INVALIDITY: &[u8] = &[0x55, 0x1d, 24];
const DELTA: &[u8] = &[0x55, 0x1d, 27];
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];
const KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];
