//! Keys: every algorithm, several issuers, files that change, API keys.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sluice_tests::{
    gateway::{Gateway, Options},
    token::{claims, pem, signed, with},
    wait,
};
use std::path::Path;

fn private(name: &str) -> EncodingKey {
    let pem = std::fs::read(pem(name)).expect("a key");
    match name {
        "ed" => EncodingKey::from_ed_pem(&pem),
        "p256" | "p384" => EncodingKey::from_ec_pem(&pem),
        _ => EncodingKey::from_rsa_pem(&pem),
    }
    .expect("a key")
}

fn admin(issuer: &str) -> Value {
    with(claims("ann", json!({ "admin": true })), "iss", json!(issuer))
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    gateway.http.send("GET", "/connections", &[("authorization", &bearer)], "").await.status
}

#[tokio::test]
async fn every_algorithm_verifies_with_its_own_key_and_several_issuers_have_theirs() {
    let secret = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    let keys = [
        ("HS256", Algorithm::HS256, "", &secret),
        ("HS384", Algorithm::HS384, "", &secret),
        ("HS512", Algorithm::HS512, "", &secret),
        ("RS256", Algorithm::RS256, "rsa", &private("rsa")),
        ("RS384", Algorithm::RS384, "rsa", &private("rsa")),
        ("RS512", Algorithm::RS512, "rsa", &private("rsa")),
        ("PS256", Algorithm::PS256, "rsa", &private("rsa")),
        ("PS384", Algorithm::PS384, "rsa", &private("rsa")),
        ("PS512", Algorithm::PS512, "rsa", &private("rsa")),
        ("ES256", Algorithm::ES256, "p256", &private("p256")),
        ("ES384", Algorithm::ES384, "p384", &private("p384")),
        ("EdDSA", Algorithm::EdDSA, "ed", &private("ed")),
    ];
    let mut config = String::new();
    for (name, _, file, _) in &keys {
        let key = match *file {
            "" => "secret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"".to_owned(),
            file => format!("public_key_file = {:?}", pem(&format!("{file}.pub"))),
        };
        config.push_str(&format!("[[auth.key]]\nalg = \"{name}\"\n{key}\nissuer = \"https://{name}\"\n"));
    }
    let gateway = Gateway::start(&config).await;
    for (name, alg, _, key) in &keys {
        let issuer = format!("https://{name}");
        assert_eq!(status(&gateway, &signed(*alg, key, None, &admin(&issuer))).await, 200, "{name}");
        assert_eq!(status(&gateway, &signed(*alg, key, None, &admin("https://other"))).await, 401, "{name}");
    }
    // The key of one issuer does not speak for another, even with the same algorithm.
    let other = signed(Algorithm::RS256, &private("other_rsa"), None, &admin("https://RS256"));
    assert_eq!(status(&gateway, &other).await, 401);
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
    let config = "[[auth.key]]\nalg = \"RS256\"\npublic_key_file = \"issuer.pem\"\n";
    let mut place = std::path::PathBuf::new();
    let gateway = Gateway::start_beside(Options { config: config.to_owned(), ..Options::default() }, |directory| {
        place = directory.join("issuer.pem");
        std::fs::copy(pem("rsa.pub"), &place).expect("a key");
    })
    .await;
    let (old, new) = ("https://a", "https://b");
    let old = signed(Algorithm::RS256, &private("rsa"), None, &admin(old));
    let new = signed(Algorithm::RS256, &private("other_rsa"), None, &admin(new));
    assert_eq!((status(&gateway, &old).await, status(&gateway, &new).await), (200, 401));

    replace(&place, b"no key at all");
    gateway.wait_metric("sse_key_reloads_total", &["result=\"failed\""], 1.0).await;
    assert_eq!(status(&gateway, &old).await, 200, "the old key holds");

    replace(&place, &std::fs::read(pem("other_rsa.pub")).expect("a key"));
    wait::until("the new key holds", async || (status(&gateway, &new).await == 200).then_some(())).await;
    assert_eq!(status(&gateway, &old).await, 401, "and the old one no more");
}

/// As Kubernetes and every careful editor do: at once.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

#[tokio::test]
async fn an_api_key_does_what_it_is_for() {
    let config = "[[auth.api_key]]\nname = \"billing\"\nkey = \"0123456789abcdef-billing\"\npublish = [\"orders.*\"]\n\
                  [[auth.api_key]]\nname = \"ops\"\nkey = \"0123456789abcdef-ops\"\nadmin = true\n";
    let gateway = Gateway::start(config).await;
    let send = async |method: &str, path: &str, header: (&str, &str)| {
        gateway.http.send(method, path, &[header], "x").await.status
    };
    let billing = ("authorization", "Bearer 0123456789abcdef-billing");
    assert_eq!(send("POST", "/channels/orders.eu/events", billing).await, 200);
    assert_eq!(send("POST", "/channels/orders.eu/events", ("x-api-key", "0123456789abcdef-billing")).await, 200);
    assert_eq!(send("POST", "/channels/other/events", billing).await, 403);
    assert_eq!(send("GET", "/connections", billing).await, 403);
    assert_eq!(send("GET", "/connections", ("x-api-key", "0123456789abcdef-ops")).await, 200);
    for wrong in ["", "0123456789abcdef", "0123456789abcdef-billin", "0123456789abcdef-billing2"] {
        assert_eq!(send("POST", "/channels/orders.eu/events", ("x-api-key", wrong)).await, 401, "{wrong:?}");
    }
    assert!(!gateway.admin.get("/config").await.text().contains("0123456789abcdef"));
}
