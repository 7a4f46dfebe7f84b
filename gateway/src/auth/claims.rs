//! What a token's claims allow.
//!
//! They stand under one claim, `sluice` unless configured: `subscribe` and `publish` (arrays of channel patterns), `join`
//! (an array of channels), `admin` (true or false). In each text `{sub}` stands for the token's subject. Whatever is
//! there must be well formed: a claim that nobody can read must not become less, or more, than was meant.

use super::{Grants, subject_in_channel};
use crate::channel::{Channel, Pattern};
use serde_json::Value;

/// Why claims are not valid, for the log; never for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidClaims(String);

/// Reads the claims at `place`: a member's name, or a JSON pointer (RFC 6901) if it begins with `/`.
///
/// # Errors
/// When something there is not well formed.
pub fn grants(token: &Value, place: &str, subject: Option<&str>) -> Result<Grants, InvalidClaims> {
    let found = if place.starts_with('/') { token.pointer(place) } else { token.get(place) };
    let Some(found) = found else { return Ok(Grants::default()) };
    let Value::Object(claims) = found else {
        return Err(InvalidClaims(format!("{place} is no object")));
    };
    let texts = |name: &str| -> Result<Vec<String>, InvalidClaims> {
        let wrong = || InvalidClaims(format!("{place}.{name} is no array of texts"));
        let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
        let texts = value.as_array().ok_or_else(wrong)?;
        texts.iter().map(|text| text.as_str().ok_or_else(wrong).and_then(|text| fill(text, subject))).collect()
    };
    let patterns = |name: &str| -> Result<Vec<Pattern>, InvalidClaims> {
        let parse =
            |text: String| Pattern::new(&text).map_err(|error| InvalidClaims(format!("{place}.{name}: {error}")));
        texts(name)?.into_iter().map(parse).collect()
    };
    let join = texts("join")?
        .into_iter()
        .map(|name| match Channel::new(&name) {
            Ok(channel) if !channel.is_reserved() => Ok(channel),
            Ok(channel) => Err(InvalidClaims(format!("{place}.join: {channel} is reserved"))),
            Err(error) => Err(InvalidClaims(format!("{place}.join: {error}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let admin = match claims.get("admin") {
        None => false,
        Some(Value::Bool(admin)) => *admin,
        Some(_) => return Err(InvalidClaims(format!("{place}.admin is not true or false"))),
    };
    Ok(Grants { subscribe: patterns("subscribe")?, publish: patterns("publish")?, join, admin })
}

/// Puts the subject in for `{sub}`.
fn fill(text: &str, subject: Option<&str>) -> Result<String, InvalidClaims> {
    if !text.contains("{sub}") {
        return Ok(text.to_owned());
    }
    let subject = subject.ok_or_else(|| InvalidClaims(format!("{text:?} needs a `sub`, and there is none")))?;
    Ok(text.replace("{sub}", &subject_in_channel(subject)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_say_which_channels() {
        let token = json!({ "sluice": { "subscribe": ["orders.*", "mine.{sub}"], "publish": ["orders.eu"], "join": ["news"] } });
        let grants = grants(&token, "sluice", Some("a|b*")).expect("valid");
        let shown = |patterns: &[Pattern]| patterns.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&grants.subscribe), ["orders.*", "mine.a%7Cb%2A"]);
        assert_eq!(shown(&grants.publish), ["orders.eu"]);
        assert_eq!(grants.join, [Channel::new("news").expect("a name")]);
        assert!(!grants.admin);
    }

    #[test]
    fn claims_may_stand_elsewhere() {
        let token = json!({ "https://x/c": { "admin": true }, "app": { "live": { "publish": ["$all"] } } });
        assert!(grants(&token, "https://x/c", None).expect("valid").admin);
        assert_eq!(grants(&token, "/app/live", None).expect("valid").publish.len(), 1);
        assert_eq!(grants(&token, "sluice", None), Ok(Grants::default()), "no claims allow nothing");
    }

    #[test]
    fn whatever_is_there_is_well_formed() {
        for odd in [
            json!("orders.*"),
            json!([]),
            json!(null),
            json!({ "subscribe": "orders.*" }),
            json!({ "subscribe": null }),
            json!({ "subscribe": [1] }),
            json!({ "subscribe": [["a"]] }),
            json!({ "subscribe": [""] }),
            json!({ "subscribe": ["a b"] }),
            json!({ "subscribe": ["mine.{sub}"] }),
            json!({ "publish": { "a": true } }),
            json!({ "publish": ["{x}"] }),
            json!({ "join": ["a.*"] }),
            json!({ "join": ["$user.7"] }),
            json!({ "admin": "true" }),
            json!({ "admin": 1 }),
            json!({ "admin": null }),
        ] {
            let token = json!({ "sluice": odd });
            assert!(grants(&token, "sluice", None).is_err(), "{token}");
        }
    }
}
