//! What the settings of TLS must be to each other and to the files that they name.

use super::{Tls, auth_keys::beside, problems::Problems};
use crate::edge::tls;
use std::path::Path;

impl Tls {
    /// The files to serve with, if TLS is wanted.
    #[must_use]
    pub fn files(&self) -> Option<tls::Files> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(tls::Files { certificate, key, client_ca: self.client_ca.clone() })
    }
}

/// Paths stand beside the file that names them.
pub(super) fn locate(tls: &mut Tls, config: Option<&Path>) {
    for path in [&mut tls.certificate, &mut tls.key, &mut tls.client_ca].into_iter().flatten() {
        beside(config, path);
    }
}

/// Reads the files too: what is wrong with them is better said now than to the first client.
pub(super) fn check(tls: &Tls, problems: &mut Problems) {
    let needs = [
        ("tls.key", tls.key.is_some(), "tls.certificate", tls.certificate.is_some()),
        ("tls.certificate", tls.certificate.is_some(), "tls.key", tls.key.is_some()),
        ("tls.client_ca", tls.client_ca.is_some(), "tls.certificate", tls.certificate.is_some()),
        ("tls.publish_needs_certificate", tls.publish_needs_certificate, "tls.client_ca", tls.client_ca.is_some()),
    ];
    for (key, is_set, needed, is_there) in needs {
        if is_set && !is_there && !problems.concern(needed) {
            problems.add(key, format!("{key} is set: it needs {needed}, which is not"));
        }
    }
    if let Some(Err(wrong)) = tls.files().map(tls::Tls::load) {
        problems.add(wrong.file.key(), wrong.to_string());
    }
}
