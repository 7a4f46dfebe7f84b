//! `sluice token`: making tokens, and saying what one allows.

use crate::{
    args::{ExplainArgs, MintArgs, TokenCommand},
    exit::Failure,
    output::{self, Output},
};
use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value, json};
use sluice_gateway::{
    auth::{self, key},
    config::Algorithm,
};
use std::{
    io::Read,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Runs one of the commands.
///
/// # Errors
/// When a key cannot be read, is none for the algorithm, or the token is none.
pub async fn run(command: TokenCommand) -> Result<(), Failure> {
    let mut output = Output::new();
    match command {
        TokenCommand::Mint(args) => output.write(format!("{}\n", mint(&args)?).as_bytes()).await,
        TokenCommand::Explain(args) => {
            let (text, wrong) = explain(&args)?;
            output.write(text.as_bytes()).await?;
            if wrong.is_empty() { Ok(()) } else { Err(failed(wrong.join("; "))) }
        }
    }
}

fn failed(why: impl ToString) -> Failure {
    Failure::Failed(why.to_string())
}

fn mint(args: &MintArgs) -> Result<String, Failure> {
    let (alg, key) = signing_key(args)?;
    let mut claims = Map::new();
    let texts = [("iss", &args.iss), ("aud", &args.aud), ("sub", &args.sub)];
    for (name, text) in texts {
        if let Some(text) = text {
            claims.insert(name.to_owned(), text.as_str().into());
        }
    }
    let id = args.id.clone().unwrap_or_else(|| format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)));
    claims.insert("jti".to_owned(), id.into());
    let now = now();
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + args.ttl.as_secs()).into());
    let mut rights = Map::new();
    for (name, list) in [("subscribe", &args.subscribe), ("publish", &args.publish), ("join", &args.join)] {
        if !list.is_empty() {
            rights.insert(name.to_owned(), json!(list));
        }
    }
    if args.admin {
        rights.insert("admin".to_owned(), true.into());
    }
    put(&mut claims, &args.claim, rights.into());
    let claims = Value::Object(claims);
    auth::grants(&claims, &args.claim, args.sub.as_deref()).map_err(failed)?;
    let header = Header { kid: args.kid.clone(), ..Header::new(alg.into()) };
    jsonwebtoken::encode(&header, &claims, &key).map_err(|error| failed(format!("it cannot be signed: {error}")))
}

/// Puts the rights where a gateway with this `auth.claim` looks for them.
fn put(claims: &mut Map<String, Value>, place: &str, rights: Value) {
    let Some(path) = place.strip_prefix('/') else {
        claims.insert(place.to_owned(), rights);
        return;
    };
    let names: Vec<_> = path.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
    let (Some((first, inner)), mut value) = (names.split_first(), rights) else { return };
    for name in inner.iter().rev() {
        value = Value::Object(Map::from_iter([(name.clone(), value)]));
    }
    claims.insert(first.clone(), value);
}

fn signing_key(args: &MintArgs) -> Result<(Algorithm, EncodingKey), Failure> {
    if let Some(file) = &args.secret_file {
        let alg = args.alg.unwrap_or(Algorithm::HS256);
        if !alg.is_symmetric() {
            return Err(failed(format!("{alg} needs --private-key, not a secret")));
        }
        let secret = key::secret(None, Some(file)).map_err(failed)?;
        return Ok((alg, EncodingKey::from_secret(&secret)));
    }
    let file = args.private_key.as_deref().unwrap_or(Path::new(""));
    let Some(alg) = args.alg else { return Err(failed("give --alg with --private-key, such as --alg ES256")) };
    let pem = std::fs::read(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    let key = match alg {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
        _ if alg.is_symmetric() => return Err(failed(format!("{alg} needs --secret-file, not a private key"))),
        _ => EncodingKey::from_rsa_pem(&pem),
    };
    let wrong = |error| failed(format!("{}: no private key in PEM for {alg} ({error})", file.display()));
    Ok((alg, key.map_err(wrong)?))
}

/// What a token says, line by line, and what is wrong with it.
fn explain(args: &ExplainArgs) -> Result<(String, Vec<String>), Failure> {
    let mut token = args.token.clone();
    if token == "-" {
        token.clear();
        let read = std::io::stdin().read_to_string(&mut token);
        read.map_err(|error| failed(format!("stdin: {error}")))?;
    }
    let token = token.trim();
    let none = |error: jsonwebtoken::errors::Error| failed(format!("this is no token: {error}"));
    let header = jsonwebtoken::decode_header(token).map_err(none)?;
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(none)?;
    let (mut text, mut wrong) = (String::new(), Vec::new());
    // Whoever made the token chose these texts.
    let mut line = |what: &str, said: &str| {
        let said = output::printable(said, output::stdout_is_terminal());
        text.push_str(&format!("{what:<12} {said}\n"));
    };

    let alg = format!("{:?}", header.alg);
    line("signed with", &format!("{alg}{}", header.kid.map(|kid| format!(", key {kid}")).unwrap_or_default()));
    let signature = match verifying_key(args, &alg)? {
        None => "not verified (give --secret-file or --public-key)".to_owned(),
        Some(key) if is_signed_by(token, &key, header.alg) => "good".to_owned(),
        Some(_) => {
            wrong.push("the signature is not of that key".to_owned());
            "not of that key".to_owned()
        }
    };
    line("signature", &signature);
    for (name, what) in [("iss", "issuer"), ("aud", "audience"), ("sub", "subject"), ("jti", "id")] {
        let shown = match claims.get(name) {
            None => "-".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        line(what, &shown);
    }
    for (name, what) in [("nbf", "valid from"), ("exp", "valid until")] {
        match claims.get(name).map(Value::as_f64) {
            None if name == "exp" => wrong.push("it has no `exp`, and is refused".to_owned()),
            None => {}
            Some(None) => wrong.push(format!("`{name}` is no time")),
            Some(Some(seconds)) => {
                let away = seconds - now() as f64;
                if (name == "exp") == (away <= 0.0) {
                    wrong.push(if name == "exp" { "it has expired" } else { "it is not valid yet" }.to_owned());
                }
                let when =
                    jiff::Timestamp::from_second(seconds as i64).map_or_else(|_| "?".to_owned(), |at| at.to_string());
                let distance = crate::duration::show(away.abs() as u64);
                let said = if away < 0.0 { format!("{distance} ago") } else { format!("in {distance}") };
                line(what, &format!("{when} ({said})"));
            }
        }
    }
    match auth::grants(&claims, &args.claim, claims.get("sub").and_then(Value::as_str)) {
        Err(error) => wrong.push(error.to_string()),
        Ok(grants) => {
            let patterns = |list: &[sluice_gateway::channel::Pattern]| {
                list.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>().join(", ")
            };
            let join = grants.join.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let rows = [
                ("subscribes", patterns(&grants.subscribe)),
                ("publishes", patterns(&grants.publish)),
                ("joins", join),
            ];
            for (what, list) in rows {
                line(what, if list.is_empty() { "-" } else { &list });
            }
            line("admin", if grants.admin { "yes" } else { "no" });
        }
    }
    Ok((text, wrong))
}

fn is_signed_by(token: &str, key: &DecodingKey, alg: jsonwebtoken::Algorithm) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    key.family() == alg.family()
        && jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, alg).unwrap_or(false)
}

fn verifying_key(args: &ExplainArgs, alg: &str) -> Result<Option<DecodingKey>, Failure> {
    let Some(alg) = Algorithm::named(alg) else { return Ok(None) };
    if let Some(file) = &args.secret_file {
        return Ok(Some(DecodingKey::from_secret(&key::secret(None, Some(file)).map_err(failed)?)));
    }
    let Some(file) = &args.public_key else { return Ok(None) };
    let pem = std::fs::read(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    key::public(alg, &pem).map(Some).map_err(failed)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
