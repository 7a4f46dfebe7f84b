//! API keys, for publishers that have no use for tokens.

use super::{Grants, Identity, key::InvalidKey};
use crate::config::ApiKey;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, sync::Arc};

/// By their digests: looking one up tells nothing of the others, however long it takes.
pub(super) struct ApiKeys(HashMap<[u8; 32], Identity>);

impl ApiKeys {
    pub(super) fn new(configured: &[ApiKey]) -> Result<Self, InvalidKey> {
        let mut keys = HashMap::new();
        for key in configured {
            let secret = super::key::secret(key.key.as_ref(), key.key_file.as_deref())?;
            let grants = Grants {
                subscribe: key.subscribe.clone(),
                publish: key.publish.clone(),
                join: Vec::new(),
                admin: key.admin,
            };
            let api_key = Some(Arc::from(key.name.as_str()));
            keys.insert(digest(&secret), Identity { grants: Some(grants), api_key, ..Identity::default() });
        }
        Ok(Self(keys))
    }

    pub(super) fn find(&self, presented: &str) -> Option<Identity> {
        self.0.get(&digest(presented.as_bytes())).cloned()
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}
