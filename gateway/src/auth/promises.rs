//! Tokens: nobody is let in by one that no key has signed, and what a signed one allows is what it says.

use super::{
    Identity,
    keyring::Keyring,
    token::{Demands, Invalid, identity},
    unix,
};
use crate::{config::Config, metrics::Metrics};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const SECRET: &str = "a secret of these tests";
/// The time here, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

static SETTINGS: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let keys = format!(r#"[{{alg = "HS256", secret = "{SECRET}", issuer = "us", audience = "them"}}]"#);
    let sources = crate::config::Sources { flags: vec![("auth.key".to_owned(), keys)], ..Default::default() };
    Arc::new(Config::load(&sources).expect("a configuration").config)
});
static RING: LazyLock<Arc<Keyring>> =
    LazyLock::new(|| Keyring::start(&SETTINGS, Arc::new(Metrics::new())).expect("a key"));

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// Any text as a token, and as the claims of a good one.
pub fn token(text: &str) {
    // No text is a token by accident: it takes the secret.
    assert!(RING.identify(text, &SETTINGS.auth, now()).is_err(), "{text:?} is signed by nobody");
    let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
    let read = identity(&claims, Demands { issuer: Some("us"), audience: Some("them") }, &SETTINGS.auth, now());
    if let Ok(identity) = &read {
        check(&claims, identity);
    }
    // Where times have a fraction, the same number can be written in several ways.
    let Ok(signed) = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))
    else {
        return;
    };
    let identified = RING.identify(&signed, &SETTINGS.auth, now());
    if signed.len() <= super::token::MAX_BYTES {
        match (&read, &identified) {
            (Ok(one), Ok(other)) => assert_eq!(one, other),
            (Err(Invalid::Expired), Err(other)) => assert_eq!(*other, Invalid::Expired),
            (one, other) => assert!(one.is_err() && other.is_err(), "{text}: {one:?}, signed {other:?}"),
        }
    }
    if identified.is_ok() {
        forge(&signed);
    }
}

/// What is identified was said by the claims.
fn check(claims: &Value, identity: &Identity) {
    let expires = identity.expires.expect("every token ends");
    assert!(unix(expires + SETTINGS.auth.leeway) > unix(now()), "{claims}");
    assert_eq!(claims["iss"], "us");
    assert!(
        claims["aud"] == "them" || claims["aud"].as_array().is_some_and(|all| all.contains(&"them".into())),
        "{claims}"
    );
    assert_eq!(identity.subject.as_deref(), claims.get("sub").and_then(Value::as_str));
    assert_eq!(identity.token_id.as_deref(), claims.get("jti").and_then(Value::as_str));
    let grants = identity.grants.as_ref().expect("a token's grants");
    let rights = claims.get("sluice");
    assert_eq!(grants.admin, rights.is_some_and(|rights| rights["admin"] == true));
    for (name, patterns) in [("subscribe", &grants.subscribe), ("publish", &grants.publish)] {
        let written = rights.and_then(|rights| rights[name].as_array()).map_or(0, Vec::len);
        assert_eq!(patterns.len(), written, "{claims}: each is there, and no other");
        for (pattern, written) in
            patterns.iter().zip(rights.iter().flat_map(|rights| rights[name].as_array()).flatten())
        {
            let stars = |text: &str| text.matches('*').count();
            assert_eq!(
                stars(pattern.as_str()),
                stars(written.as_str().expect("a text")),
                "{claims}: a subject is no pattern"
            );
        }
    }
    assert!(grants.join.iter().all(|channel| !channel.is_reserved()), "{claims}");
}

/// A good token with another byte anywhere is none.
fn forge(signed: &str) {
    let places: BTreeSet<_> = (0..signed.len()).step_by(1 + signed.len() / 16).chain([signed.len() - 1]).collect();
    for at in places {
        for other in ["A", "B", "-", "."] {
            if signed[at..=at] != *other {
                let forged = [&signed[..at], other, &signed[at + 1..]].concat();
                assert!(RING.identify(&forged, &SETTINGS.auth, now()).is_err(), "{forged} for {signed}");
            }
        }
    }
    for forged in
        [format!("{signed}="), format!("{signed}A"), format!(" {signed}"), signed[..signed.len() - 1].to_owned()]
    {
        assert!(RING.identify(&forged, &SETTINGS.auth, now()).is_err(), "{forged} for {signed}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_is_a_token_and_signed_claims_say_what_they_allow(
            exp in "-?[0-9]{1,12}(\\.[0-9]{1,12})?|[12][0-9]{9}|1[89]00000000|1e[0-9]{1,3}|\"x\"|null",
            issuer in "us|us|us|them", audience in "\"them\"|\\[\"us\",\"them\"\\]|\\[1,\"them\"\\]|\"x\"",
            subject in "[a-z*{}| ]{0,6}|[a-z%é]{150,210}",
            pattern in "[a-z.*]{1,5}|mine\\.\\{sub\\}|[ -~&&[^\"\\\\]]{0,4}", join in "[a-z.]{1,4}|\\$all|\\{sub\\}",
            admin in "true|false|1|null",
        ) {
            let rights = format!(r#"{{"subscribe":["{pattern}"],"publish":["{pattern}","a"],"join":["{join}"],"admin":{admin}}}"#);
            super::token(&format!(
                r#"{{"exp":{exp},"iss":"{issuer}","aud":{audience},"sub":"{subject}","jti":"{subject}","sluice":{rights}}}"#
            ));
        }

        #[test]
        fn any_text_is_refused(text in "[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,50}|.*") {
            super::token(&text);
        }
    }
}
