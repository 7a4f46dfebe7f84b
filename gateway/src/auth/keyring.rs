//! All keys that tokens may be signed with, kept as their files and addresses have them.

use super::{
    Identity,
    jwks::JwksKey,
    key::{self, InvalidKey},
    token::{self, Demands, Invalid, Parts},
};
use crate::{
    config::{Auth, AuthKey, Config},
    metrics::Metrics,
};
use jsonwebtoken::DecodingKey;
use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, SystemTime},
};

/// How often key files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Keyring(Vec<Key>);

struct Key {
    settings: AuthKey,
    material: Material,
}

enum Material {
    Fixed(RwLock<DecodingKey>),
    Fetched(Arc<JwksKey>),
}

impl Keyring {
    pub(super) fn start(config: &Arc<Config>, metrics: Arc<Metrics>) -> Result<Arc<Self>, InvalidKey> {
        let read = |settings: &AuthKey| {
            let material = match (key::verifying(settings)?, &settings.jwks_url) {
                (Some(verifying), _) => Material::Fixed(RwLock::new(verifying)),
                (None, Some(url)) => {
                    Material::Fetched(JwksKey::start(url.as_str(), settings.alg, &config.auth, Arc::clone(&metrics)))
                }
                (None, None) => return Err(InvalidKey::new("a key has neither a value nor an address")),
            };
            Ok(Key { settings: settings.clone(), material })
        };
        let ring = Arc::new(Self(config.auth.key.iter().map(read).collect::<Result<_, _>>()?));
        if ring.0.iter().any(|key| key.settings.file().is_some()) {
            tokio::spawn(keep_fresh(Arc::downgrade(&ring), metrics));
        }
        Ok(ring)
    }

    /// Whom a token stands for, if one of the keys has signed it and its claims are what that key demands.
    pub(super) fn identify(&self, token: &str, settings: &Auth, now: SystemTime) -> Result<Identity, Invalid> {
        let parts = Parts::of(token)?;
        // What is wrong with a token that no key accepts is what the key says that came furthest.
        let mut refused = Invalid::Wrong("no key has its algorithm".to_owned());
        let mut unavailable = false;
        for key in &self.0 {
            if jsonwebtoken::Algorithm::from(key.settings.alg) != parts.header.alg || !key.may_be(&parts) {
                continue;
            }
            match key.has_signed(&parts) {
                Ok(true) => {}
                Ok(false) => {
                    if matches!(refused, Invalid::Wrong(_)) {
                        refused = Invalid::Wrong("its signature is of no key that is known".to_owned());
                    }
                    continue;
                }
                Err(KeysUnavailable) => {
                    unavailable = true;
                    continue;
                }
            }
            let (issuer, audience) = (key.settings.issuer.as_deref(), key.settings.audience.as_deref());
            match token::identity(&parts.claims()?, Demands { issuer, audience }, settings, now) {
                Ok(identity) => return Ok(identity),
                Err(why) if refused != Invalid::Expired => refused = why,
                Err(_) => {}
            }
        }
        match refused {
            Invalid::Wrong(_) if unavailable => Err(Invalid::KeysUnavailable),
            refused => Err(refused),
        }
    }
}

/// The keys of an issuer were never fetched.
struct KeysUnavailable;

impl Key {
    /// Whether the key's id is the token's, if both have one.
    fn may_be(&self, parts: &Parts<'_>) -> bool {
        match (&self.settings.kid, &parts.header.kid) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        }
    }

    fn has_signed(&self, parts: &Parts<'_>) -> Result<bool, KeysUnavailable> {
        let alg = self.settings.alg;
        match &self.material {
            Material::Fixed(key) => Ok(parts.is_signed_by(alg, &key.read().unwrap_or_else(PoisonError::into_inner))),
            Material::Fetched(keys) => {
                let Some(known) = keys.known(parts.header.kid.as_deref()) else { return Err(KeysUnavailable) };
                Ok(known.iter().any(|key| parts.is_signed_by(alg, key)))
            }
        }
    }
}

/// Reads key files again when they change. A new one that cannot be used changes nothing.
async fn keep_fresh(ring: Weak<Keyring>, metrics: Arc<Metrics>) {
    let mut seen: Vec<Option<Vec<u8>>> = Vec::new();
    loop {
        let Some(ring) = ring.upgrade() else { return };
        let files: Vec<_> = ring.0.iter().map(|key| key.settings.file().map(ToOwned::to_owned)).collect();
        let read = tokio::task::spawn_blocking(move || {
            files.iter().map(|file| file.as_ref().and_then(|file| std::fs::read(file).ok())).collect::<Vec<_>>()
        });
        let contents = read.await.unwrap_or_default();
        for (nth, (key, content)) in ring.0.iter().zip(&contents).enumerate() {
            let Material::Fixed(verifying) = &key.material else { continue };
            if content.is_none() || seen.get(nth) == Some(content) {
                continue;
            }
            match key::verifying(&key.settings) {
                // It may have changed before it was first looked at.
                Ok(Some(new)) if seen.is_empty() => *verifying.write().unwrap_or_else(PoisonError::into_inner) = new,
                Ok(Some(new)) => {
                    *verifying.write().unwrap_or_else(PoisonError::into_inner) = new;
                    metrics.key_reloads.with_label_values(&["changed"]).inc();
                    tracing::info!(key = nth, "a key file has changed and was read again");
                }
                Ok(None) => {}
                Err(error) => {
                    metrics.key_reloads.with_label_values(&["failed"]).inc();
                    tracing::error!(key = nth, %error, "a key file has changed and cannot be used; the old key holds");
                }
            }
        }
        seen = contents;
        drop(ring);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
