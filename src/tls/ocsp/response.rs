//! The structure of an OCSP response (RFC 6960 §4.2.1), with the names of the RFC.

use der::asn1::{AnyRef, GeneralizedTime, IntRef, Null, ObjectIdentifier, OctetStringRef};
use der::{Choice, Enumerated, Sequence};

#[derive(Sequence)]
pub(super) struct OcspResponse<'a> {
    pub response_status: OcspResponseStatus,
    #[asn1(context_specific = "0", optional = "true")]
    pub response_bytes: Option<ResponseBytes<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[repr(u8)]
pub(crate) enum OcspResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
pub(super) struct ResponseBytes<'a> {
    pub response_type: ObjectIdentifier,
    pub response: &'a OctetStringRef,
}

/// The signed part of a `BasicOCSPResponse`.
#[derive(Sequence)]
pub(super) struct ResponseData<'a> {
    #[asn1(context_specific = "0", optional = "true")]
    version: Option<u8>,
    responder_id: AnyRef<'a>,
    produced_at: GeneralizedTime,
    pub responses: Vec<SingleResponse<'a>>,
    #[asn1(context_specific = "1", optional = "true")]
    response_extensions: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
pub(super) struct SingleResponse<'a> {
    pub cert_id: CertId<'a>,
    pub cert_status: CertStatus<'a>,
    pub this_update: GeneralizedTime,
    #[asn1(context_specific = "0", optional = "true")]
    pub next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", optional = "true")]
    single_extensions: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
pub(super) struct CertId<'a> {
    pub hash_algorithm: AlgorithmIdentifier<'a>,
    pub issuer_name_hash: &'a OctetStringRef,
    pub issuer_key_hash: &'a OctetStringRef,
    pub serial_number: IntRef<'a>,
}

#[derive(Sequence)]
pub(super) struct AlgorithmIdentifier<'a> {
    pub algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Choice)]
pub(super) enum CertStatus<'a> {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo<'a>),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Sequence)]
pub(super) struct RevokedInfo<'a> {
    pub revocation_time: GeneralizedTime,
    #[asn1(context_specific = "0", optional = "true")]
    revocation_reason: Option<AnyRef<'a>>,
}
