//! One configured key: from a text or a file to what verifies signatures.

use crate::config::{Algorithm, AuthKey, Secret};
use jsonwebtoken::DecodingKey;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use std::path::Path;

/// Why a key cannot be used. Names the setting's place and never what the key is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(String);

impl InvalidKey {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What verifies a key's signatures; `None` for a key that is fetched.
///
/// # Errors
/// When its file cannot be read, or there is no key of that algorithm in it.
pub fn verifying(key: &AuthKey) -> Result<Option<DecodingKey>, InvalidKey> {
    if key.jwks_url.is_some() {
        return Ok(None);
    }
    if key.alg.is_symmetric() {
        let secret = secret(key.secret.as_ref(), key.secret_file.as_deref())?;
        if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
            // A public key as a secret is the oldest way to have tokens forged.
            return Err(InvalidKey::new("this is a key or certificate in PEM, and no secret that both sides share"));
        }
        return Ok(Some(DecodingKey::from_secret(&secret)));
    }
    let pem = match (&key.public_key, &key.public_key_file) {
        (Some(pem), _) => pem.clone().into_bytes(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(InvalidKey::new("there is no public key")),
    };
    public(key.alg, &pem).map(Some)
}

/// A public key in PEM (`BEGIN PUBLIC KEY`, for RSA `BEGIN RSA PUBLIC KEY` too), or in a certificate.
///
/// # Errors
/// When there is none in it for that algorithm.
pub fn public(alg: Algorithm, pem: &[u8]) -> Result<DecodingKey, InvalidKey> {
    if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
        return Err(InvalidKey::new("this is a private key: the gateway needs, and should have, the public one alone"));
    }
    let curve: Option<&[u8]> = match alg {
        // prime256v1 and secp384r1, as DER has them.
        Algorithm::ES256 => Some(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
        Algorithm::ES384 => Some(&[0x2b, 0x81, 0x04, 0x00, 0x22]),
        _ => None,
    };
    let of_pem = |curve: &[u8]| {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem).map(|key| key.as_ref().to_vec());
        let der = key.or_else(|_| CertificateDer::from_pem_slice(pem).map(|certificate| certificate.as_ref().to_vec()));
        der.is_ok_and(|der| der.windows(curve.len()).any(|part| part == curve))
    };
    if curve.is_some_and(|curve| !of_pem(curve)) {
        return Err(InvalidKey::new(format!("there is no public key in PEM of the curve that {alg} has")));
    }
    let parsed = match alg {
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        _ => DecodingKey::from_rsa_pem(pem),
    };
    parsed.map_err(|error| InvalidKey::new(format!("there is no public key in PEM for {alg} ({error})")))
}

/// A shared secret. One line break at the end of a text file is none of it.
///
/// # Errors
/// When it is empty, or its file cannot be read.
pub fn secret(inline: Option<&Secret>, file: Option<&Path>) -> Result<Vec<u8>, InvalidKey> {
    let secret = match (inline, file) {
        (Some(secret), _) => secret.expose().as_bytes().to_vec(),
        (None, Some(path)) => without_line_break(read(path)?),
        (None, None) => return Err(InvalidKey::new("there is no secret")),
    };
    if secret.is_empty() {
        return Err(InvalidKey::new("the secret is empty"));
    }
    Ok(secret)
}

/// Random bytes may end in that of a line break; a text that does was written by an editor or by `echo`.
fn without_line_break(mut secret: Vec<u8>) -> Vec<u8> {
    let is_text = secret.iter().all(|byte| byte.is_ascii_graphic() || b" \t\r\n".contains(byte));
    if is_text && secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    secret
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidKey> {
    crate::files::read(path).map_err(|error| InvalidKey::new(format!("{}: cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_curve_is_refused() {
        let pem = |curve| rcgen::KeyPair::generate_for(curve).expect("a key").public_key_pem();
        let (p256, p384) = (pem(&rcgen::PKCS_ECDSA_P256_SHA256), pem(&rcgen::PKCS_ECDSA_P384_SHA384));
        assert!(public(Algorithm::ES256, p256.as_bytes()).is_ok() && public(Algorithm::ES384, p384.as_bytes()).is_ok());
        for (alg, other) in [(Algorithm::ES256, p384), (Algorithm::ES384, p256)] {
            let why = public(alg, other.as_bytes()).expect_err("another curve").to_string();
            assert!(why.contains("curve"), "{why}");
        }
    }

    #[test]
    fn the_line_break_of_a_text_is_not_of_the_secret() {
        for (file, secret) in [
            (&b"abc\n"[..], &b"abc"[..]),
            (b"abc\r\n", b"abc"),
            (b"abc\n\n", b"abc\n"),
            (b"abc", b"abc"),
            (b"\xff\x01\n", b"\xff\x01\n"),
        ] {
            assert_eq!(without_line_break(file.to_vec()), secret);
        }
    }
}
