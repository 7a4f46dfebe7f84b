//! Every way in, with every kind of token. Not one passes that should not, and no answer tells more than it must.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sluice_tests::{
    gateway::Gateway,
    http::Answer,
    token::{KEYS, SECRET, base64, claims, forged, now, pem, signed, token, with},
};

const CONFIG: &str = "[[channel]]\nmatch = \"public.*\"\nread = \"anyone\"\n\
                      [cors]\norigins = [\"https://app.example.com\"]\n";

/// What a token may be good for.
const ACTS: [(&str, &str, &str, u16); 9] = [
    ("GET", "/events?channel=orders.eu&wait=1ms", "", 200),
    ("POST", "/channels/orders.eu/events", "x", 200),
    ("POST", "/events", "{\"channel\":\"orders.eu\",\"data\":1}", 200),
    ("POST", "/broadcast", "x", 200),
    ("GET", "/channels/orders.eu/events", "", 200),
    ("GET", "/connections", "", 200),
    ("GET", "/channels/orders.eu", "", 200),
    ("DELETE", "/connections/nobody", "", 204),
    ("DELETE", "/users/nobody/connections", "", 204),
];

fn all_rights() -> Value {
    json!({ "subscribe": ["orders.*", "mine.{sub}"], "publish": ["orders.eu", "$all"], "admin": true })
}

/// Where a token stands in a request.
#[derive(Clone, Copy, Debug)]
enum Place {
    Header,
    Query,
    Cookie,
}

async fn send(gateway: &Gateway, act: (&str, &str, &str), place: Option<(Place, &str)>) -> Answer {
    let (method, target, body) = act;
    let mut headers = vec![("accept", "application/json".to_owned())];
    let mut target = target.to_owned();
    match place {
        None => {}
        Some((Place::Header, token)) => headers.push(("authorization", format!("Bearer {token}"))),
        Some((Place::Query, token)) => {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("token={token}"));
        }
        Some((Place::Cookie, token)) => {
            headers.push(("cookie", format!("other=1; sluice={token}")));
            headers.push(("origin", "https://app.example.com".to_owned()));
        }
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.http.send(method, &target, &headers, body.to_owned()).await
}

/// Tokens that no one may use, each with why.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = claims("ann", all_rights());
    let whole = token(&good);
    let hs = |alg: &str| json!({ "alg": alg, "typ": "JWT" });
    let parts: Vec<_> = whole.split('.').collect();
    let public = std::fs::read(pem("rsa.pub")).expect("a key");
    let rsa = EncodingKey::from_rsa_pem(&std::fs::read(pem("rsa")).expect("a key")).expect("a key");
    let claim = |name: &str, value: Value| token(&with(good.clone(), name, value));
    let sluice = |value: Value| claim("sluice", value);
    vec![
        ("empty", String::new()),
        ("garbage", "garbage".to_owned()),
        ("expired", claim("exp", json!(now() - 3600))),
        ("expired by a fraction", claim("exp", json!(now() as f64 - 60.5))),
        ("not yet valid", claim("nbf", json!(now() + 3600))),
        ("no exp", claim("exp", Value::Null)),
        ("exp is a text", claim("exp", json!((now() + 3600).to_string()))),
        ("exp is negative", claim("exp", json!(-1))),
        ("exp is in milliseconds", claim("exp", json!((now() + 3600) * 1000))),
        ("exp is true", claim("exp", json!(true))),
        ("nbf is a text", claim("nbf", json!("0"))),
        ("another audience", claim("aud", json!("other"))),
        ("no audience", claim("aud", Value::Null)),
        ("audiences without ours", claim("aud", json!(["a", "b"]))),
        ("an audience that is no text", claim("aud", json!(["sluice", 1]))),
        ("an audience that begins like ours", claim("aud", json!("sluice2"))),
        ("another issuer", claim("iss", json!("https://evil.example.com"))),
        ("no issuer", claim("iss", Value::Null)),
        ("issuers", claim("iss", json!(["https://id.example.com"]))),
        ("sub is a number", claim("sub", json!(7))),
        ("sub is empty", claim("sub", json!(""))),
        ("sub is too long", claim("sub", json!("x".repeat(300)))),
        ("jti is a number", claim("jti", json!(7))),
        ("claims that are a text", sluice(json!("orders.*"))),
        ("subscribe is a text", sluice(json!({ "subscribe": "orders.*" }))),
        ("publish is a number", sluice(json!({ "publish": 1 }))),
        ("a pattern that is none", sluice(json!({ "subscribe": ["a b"] }))),
        ("admin is a text", sluice(json!({ "admin": "true" }))),
        (
            "another key",
            signed(Algorithm::HS256, &EncodingKey::from_secret(b"another secret of 32 bytes or so"), None, &good),
        ),
        ("another algorithm", signed(Algorithm::HS512, &EncodingKey::from_secret(SECRET.as_bytes()), None, &good)),
        ("an algorithm of another kind", signed(Algorithm::RS256, &rsa, None, &good)),
        ("a public key as the secret", signed(Algorithm::HS256, &EncodingKey::from_secret(&public), None, &good)),
        ("no algorithm, no signature", format!("{}.{}.", base64(hs("none").to_string().as_bytes()), parts[1])),
        ("no algorithm, a signature", forged(&hs("none"), &good, SECRET.as_bytes())),
        ("NONE", forged(&hs("NONE"), &good, SECRET.as_bytes())),
        ("an algorithm in lower case", forged(&hs("hs256"), &good, SECRET.as_bytes())),
        ("an algorithm that is a list", forged(&json!({ "alg": ["HS256"] }), &good, SECRET.as_bytes())),
        ("no header", forged(&json!({}), &good, SECRET.as_bytes())),
        (
            "a critical header",
            forged(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &good, SECRET.as_bytes()),
        ),
        ("claims that are no object", forged(&hs("HS256"), &json!([1]), SECRET.as_bytes())),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("no third part", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{whole}.x")),
        ("a changed signature", changed(&whole)),
        ("other claims under a good signature", {
            let other = base64(with(good.clone(), "sub", json!("eve")).to_string().as_bytes());
            format!("{}.{other}.{}", parts[0], parts[2])
        }),
        ("cut", whole[..whole.len() - 5].to_owned()),
        ("huge", token(&with(good.clone(), "x", json!("x".repeat(9000))))),
    ]
}

/// The signature's first digit is another one.
fn changed(token: &str) -> String {
    let at = token.rfind('.').expect("a signature") + 1;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn a_good_token_passes_by_every_way_and_no_bad_one_by_any() {
    let gateway = Gateway::start(&format!("{CONFIG}{KEYS}")).await;
    let good = token(&claims("ann", all_rights()));
    for (method, target, body, expected) in ACTS {
        let act = (method, target, body);
        for place in [Place::Header, Place::Query, Place::Cookie] {
            let answer = send(&gateway, act, Some((place, &good))).await;
            assert_eq!(answer.status, expected, "good, {place:?}, {act:?}: {}", answer.text());
        }
        let nobody = send(&gateway, act, None).await;
        nobody.problem(401);
        assert_eq!(nobody.header("www-authenticate"), "Bearer");
    }
    for (why, bad) in bad_tokens() {
        for (method, target, body, _) in ACTS {
            for place in [Place::Header, Place::Query, Place::Cookie] {
                let answer = send(&gateway, (method, target, body), Some((place, &bad))).await;
                let detail = answer.problem(401)["detail"].as_str().expect("a text").to_owned();
                let told = ["the token is not valid", "the token has expired"].contains(&&*detail)
                    || detail.starts_with("give one token");
                assert!(told && !answer.text().contains("orders"), "{why}, {place:?}: {detail}");
                assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{why}");
            }
        }
        // Not even what everyone may do: a bad token is never taken for none.
        let public =
            send(&gateway, ("GET", "/events?channel=public.a&wait=1ms", ""), Some((Place::Header, &bad))).await;
        public.problem(401);
    }
    let said = gateway.process.stdout() + &gateway.process.stderr();
    assert!(!said.contains(&good) && !said.contains(SECRET), "no token and no secret is in the log: {said}");
    let config = gateway.admin.get("/config").await.text();
    assert!(!config.contains(SECRET), "{config}");
}

#[tokio::test]
async fn a_token_allows_what_it_names_and_nothing_else() {
    let gateway = Gateway::start(&format!("{CONFIG}{KEYS}")).await;
    let subscriber = token(&claims("ann", json!({ "subscribe": ["orders.*", "mine.{sub}"] })));
    let publisher = token(&claims("ann", json!({ "publish": ["orders.eu"] })));
    let admin = token(&claims("ann", json!({ "admin": true })));
    let star = token(&claims("*", json!({ "subscribe": ["mine.{sub}"] })));
    let nothing = token(&with(claims("ann", json!({})), "sluice", Value::Null));
    let events = |channel: &str| format!("/events?channel={channel}&wait=1ms");
    let publish = |channel: &str| format!("/channels/{channel}/events");
    for (who, method, target, status) in [
        (&subscriber, "GET", events("orders.eu"), 200),
        (&subscriber, "GET", events("mine.ann"), 200),
        (&subscriber, "GET", events("mine.bob"), 403),
        (&subscriber, "GET", events("order"), 403),
        (&subscriber, "GET", events("public.a"), 200),
        (&subscriber, "GET", publish("orders.eu"), 200),
        (&subscriber, "GET", publish("secret"), 403),
        (&subscriber, "POST", publish("orders.eu"), 403),
        (&subscriber, "POST", publish("public.a"), 403),
        (&subscriber, "GET", "/connections".to_owned(), 403),
        (&subscriber, "GET", "/channels/orders.eu".to_owned(), 403),
        (&subscriber, "DELETE", "/connections/x".to_owned(), 403),
        (&subscriber, "DELETE", "/users/ann/connections".to_owned(), 403),
        (&subscriber, "DELETE", "/tokens/x".to_owned(), 403),
        (&subscriber, "DELETE", publish("orders.eu"), 403),
        (&subscriber, "POST", "/broadcast".to_owned(), 403),
        (&publisher, "POST", publish("orders.eu"), 200),
        (&publisher, "POST", publish("orders.us"), 403),
        (&publisher, "POST", publish("$all"), 403),
        (&publisher, "POST", publish("$user.ann"), 403),
        (&publisher, "POST", "/broadcast".to_owned(), 403),
        (&publisher, "GET", events("orders.eu"), 403),
        (&admin, "GET", "/connections".to_owned(), 200),
        (&admin, "GET", "/channels/any".to_owned(), 200),
        (&admin, "GET", publish("any"), 200),
        (&admin, "DELETE", publish("any"), 204),
        (&admin, "DELETE", "/connections/x".to_owned(), 204),
        (&admin, "GET", events("any"), 403),
        (&admin, "POST", publish("any"), 403),
        (&star, "GET", events("mine.ann"), 403),
        (&star, "GET", events("mine.%252A"), 200),
        (&nothing, "GET", events("orders.eu"), 403),
        (&nothing, "GET", events("public.a"), 200),
        (&nothing, "POST", publish("orders.eu"), 403),
    ] {
        let answer = send(&gateway, (method, &target, "x"), Some((Place::Header, who))).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    }
    // Many in one request: each by itself.
    let body = "{\"channel\":\"orders.eu\",\"data\":1}\n{\"channel\":\"orders.us\",\"data\":1}\n";
    let answer = send(&gateway, ("POST", "/events", body), Some((Place::Header, &publisher))).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let results = &answer.json()["results"];
    assert!(results[0]["position"].is_string(), "{results}");
    assert_eq!(results[1]["problem"]["status"], 403, "{results}");
}

#[tokio::test]
async fn a_cookie_is_taken_from_our_own_pages_alone() {
    let gateway = Gateway::start(&format!("{CONFIG}{KEYS}")).await;
    let cookie = format!("sluice={}", token(&claims("ann", all_rights())));
    let of = async |headers: &[(&str, &str)]| {
        let mut statuses = Vec::new();
        for (method, target, body, _) in ACTS {
            let mut all = vec![("cookie", cookie.as_str()), ("accept", "application/json")];
            all.extend_from_slice(headers);
            statuses.push(gateway.http.send(method, target, &all, body).await.status);
        }
        statuses
    };
    let good = ACTS.map(|(.., status)| status).to_vec();
    let refused = vec![403; ACTS.len()];
    assert_eq!(of(&[("origin", "https://app.example.com")]).await, good);
    assert_eq!(of(&[("sec-fetch-site", "same-origin")]).await, good);
    for headers in [
        &[][..],
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("origin", "https://app.example.com.evil.com")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", "https://evil.example.com"), ("sec-fetch-site", "cross-site")],
        // A browser says each once.
        &[("origin", "https://app.example.com"), ("origin", "https://evil.example.com")],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(of(headers).await, refused, "{headers:?}");
    }
    let listed = gateway
        .http
        .send("GET", "/channels/orders.eu/events", &[("origin", "https://app.example.com"), ("cookie", &cookie)], "")
        .await;
    assert_eq!(listed.header("access-control-allow-origin"), "https://app.example.com");
    assert_eq!(listed.header("access-control-allow-credentials"), "true", "else the page could not read it");
    // Another name, if it is configured.
    let renamed = Gateway::start(&format!("[auth]\ncookie = \"session\"\n{CONFIG}{KEYS}")).await;
    let session = cookie.replace("sluice=", "session=");
    let same = ("sec-fetch-site", "same-origin");
    assert_eq!(renamed.http.send("GET", "/connections", &[("cookie", &session), same], "").await.status, 200);
    renamed.http.send("GET", "/connections", &[("cookie", &cookie), same], "").await.problem(401);
}
