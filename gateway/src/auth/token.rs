//! Verifying a JWT (RFC 7519) that is signed (RFC 7515).
//!
//! The algorithm is the key's: a token that says another is not tried against it. Nothing in a token's header is followed
//! (`jku`, `jwk`, `x5u`), and one that must be understood (`crit`) is refused.

use super::{Identity, claims, unix};
use crate::{
    channel::Channel,
    config::{Algorithm, Auth},
};
use jsonwebtoken::{DecodingKey, Header};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A token may be as long as this. Signing keys make 700 bytes of it at the most.
pub(super) const MAX_BYTES: usize = 8 * 1024;
/// Later than any clock of ours: what is beyond is no time, but a mistake in the unit.
const MAX_SECONDS: f64 = 253_402_300_800.0;

/// Why a token is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is good, but its time is over.
    #[error("the token has expired")]
    Expired,
    #[error("the token was denied")]
    Denied,
    /// The keys it may be signed with are not here.
    #[error("the issuer's keys cannot be fetched")]
    KeysUnavailable,
    /// For the log alone: a client is not told which part of a token is wrong.
    #[error("{0}")]
    Wrong(String),
}

pub(super) fn wrong<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid::Wrong(why.into()))
}

/// What a key demands of its tokens beside a signature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
}

/// A token taken apart, nothing of it verified.
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    whole: &'a str,
    message: &'a [u8],
    signature: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, Invalid> {
        if token.len() > MAX_BYTES {
            return wrong(format!("it has more than {MAX_BYTES} bytes"));
        }
        let mut parts = token.split('.');
        let (Some(_), Some(_), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return wrong("it has not three parts");
        };
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| Invalid::Wrong(format!("its header: {error}")))?;
        if header.crit.is_some() {
            return wrong("its header has `crit`");
        }
        let message = &token.as_bytes()[..token.len() - signature.len() - 1];
        Ok(Self { header, whole: token, message, signature })
    }

    pub(super) fn is_signed_by(&self, alg: Algorithm, key: &DecodingKey) -> bool {
        let alg = alg.into();
        self.header.alg == alg
            && key.family() == jsonwebtoken::Algorithm::family(alg)
            && jsonwebtoken::crypto::verify(self.signature, self.message, key, alg).unwrap_or(false)
    }

    /// Reads the claims. Only of a token whose signature is good.
    pub(super) fn claims(&self) -> Result<Value, Invalid> {
        // The signature has been verified, with the key's own algorithm; what times and names must be is ours to say.
        match jsonwebtoken::dangerous::insecure_decode_claims(self.whole) {
            Ok(claims @ Value::Object(_)) => Ok(claims),
            Ok(_) => wrong("its claims are no object"),
            Err(error) => wrong(format!("its claims: {error}")),
        }
    }
}

/// Whom the claims of a token with a good signature stand for.
pub(super) fn identity(
    claims: &Value,
    demands: Demands<'_>,
    settings: &Auth,
    now: SystemTime,
) -> Result<Identity, Invalid> {
    let leeway = settings.leeway;
    let Some(expires) = time(claims, "exp")? else { return wrong("it has no `exp`") };
    if let Some(issuer) = demands.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return wrong("`iss` is another one, or missing");
    }
    if let Some(audience) = demands.audience
        && !is_for(claims, audience)
    {
        return wrong("`aud` is another one, or missing");
    }
    let subject = text(claims, "sub")?;
    let token_id = text(claims, "jti")?;
    if let Some(subject) = subject
        && Channel::of_user(subject).is_err()
    {
        return wrong("`sub` is empty, or too long for a channel's name");
    }
    let grants = claims::grants(claims, &settings.claim, subject).map_err(|error| Invalid::Wrong(error.to_string()))?;
    if let Some(from) = time(claims, "nbf")?
        && from > now + leeway
    {
        return wrong("it is not valid yet");
    }
    // Last, so that only a token that is good otherwise is told to have been so.
    if unix(now) >= unix(expires + leeway) {
        return Err(Invalid::Expired);
    }
    Ok(Identity {
        subject: subject.map(Into::into),
        token_id: token_id.map(Into::into),
        expires: Some(expires),
        grants: Some(grants),
        api_key: None,
    })
}

/// Whether `aud`, a text or an array of texts, names the audience.
fn is_for(claims: &Value, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one.as_str() == Some(audience))
        }
        _ => false,
    }
}

fn text<'a>(claims: &'a Value, name: &str) -> Result<Option<&'a str>, Invalid> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => wrong(format!("`{name}` is no text")),
    }
}

/// A time in seconds since 1970, perhaps with a fraction (RFC 7519, 2: NumericDate).
fn time(claims: &Value, name: &str) -> Result<Option<SystemTime>, Invalid> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..MAX_SECONDS).contains(&seconds) => {
            Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
        }
        _ => wrong(format!("`{name}` is no time in seconds since 1970")),
    }
}
