//! Tokens for tests: good ones, and every kind of bad one.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// The secret of [`KEYS`].
pub const SECRET: &str = "an issuer's secret of 32 bytes or more";

/// Settings of a gateway with this one key.
pub const KEYS: &str = "[[auth.key]]\nalg = \"HS256\"\nsecret = \"an issuer's secret of 32 bytes or more\"\n\
                        issuer = \"https://id.example.com\"\naudience = \"sluice\"\n";

/// Seconds since 1970.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Claims that [`KEYS`] accept for an hour, with `sluice` as given.
#[must_use]
pub fn claims(subject: &str, sluice: Value) -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "sluice", "sub": subject, "jti": format!("of-{subject}"),
        "exp": now() + 3600, "sluice": sluice,
    })
}

/// The same with one claim replaced, or left out if it is null.
#[must_use]
pub fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let Value::Object(members) = &mut claims else { return claims };
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

/// A token that [`KEYS`] accept if the claims are good.
#[must_use]
pub fn token(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), None, claims)
}

/// # Panics
/// When the key is none for the algorithm.
#[must_use]
pub fn signed(alg: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
    jsonwebtoken::encode(&header, claims, key).expect("a token")
}

/// A token with any header, signed with the secret as HS256 is.
///
/// # Panics
/// Never: HS256 takes any key.
#[must_use]
pub fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// Base64 for URLs, without padding (RFC 4648, 5).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// A key pair of the tests: `rsa`, `other_rsa`, `p256`, `p384` or `ed`.
#[must_use]
pub fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("keys").join(format!("{name}.pem"))
}
