//! Certificates for tests, made anew for each, and who trusts them.

use crate::http::Http;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What a gateway's own certificate and key are called beside its settings file.
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
/// The authority of clients.
pub const CLIENT_CA: &str = "clients.crt";
/// Settings of a gateway with these files.
pub const SERVED: &str = "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";

/// An authority that signs whatever a test needs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "An authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For a server on this machine.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn server(&self) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.signed(CertificateParams::new(names).expect("names"))
    }

    /// For a client of this name.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn client(&self, name: &str) -> Pair {
        self.client_until(name, SystemTime::now() + Duration::from_secs(3600))
    }

    /// The same, whose certificate is valid until then.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn client_until(&self, name: &str, end: SystemTime) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = end.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(params)
    }

    /// Puts into a directory what a server of this machine needs, and what its client `gateway` does.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write_both(&self, directory: &Path) {
        let (server, client) = (self.server(), self.client("gateway"));
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("written");
        write("ca.crt", &self.pem);
        write("server.crt", &server.certificate);
        write("server.key", &server.key);
        write("client.crt", &client.certificate);
        write("client.key", &client.key);
    }

    fn signed(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// Whoever trusts this authority, and presents no certificate.
    #[must_use]
    pub fn trusted(&self) -> ClientConfig {
        rustls_builder(self).with_no_client_auth()
    }

    /// Whoever trusts this authority, and presents this certificate to all who ask.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn trusted_by(&self, pair: &Pair) -> ClientConfig {
        let (chain, key) = pair.der();
        rustls_builder(self).with_client_auth_cert(chain, key).expect("a certificate")
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

type WantsClientCert = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

/// Trusts this authority; has yet to say what it presents.
///
/// # Panics
/// When the authority cannot be read.
#[must_use]
pub fn rustls_builder(authority: &Authority) -> WantsClientCert {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.expect("versions").with_root_certificates(roots)
}

impl Pair {
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate");
        (vec![certificate], PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key"))
    }

    /// Puts both where a gateway with [`SERVED`] looks for them, each in one step.
    pub fn write(&self, directory: &Path) {
        replace(&directory.join(KEY), &self.key);
        replace(&directory.join(CERTIFICATE), &self.certificate);
    }
}

/// Puts another file in a file's place, so that nobody reads half of it.
///
/// # Panics
/// When it cannot.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(&beside, path).expect("renamed");
}

/// Requests over TLS, HTTP/2 where it is offered; with this certificate if there is one.
///
/// # Panics
/// When no client can be made.
#[must_use]
pub fn http(address: SocketAddr, authority: &Authority, pair: Option<&Pair>) -> Http {
    let trusted = reqwest::Certificate::from_pem(authority.pem.as_bytes()).expect("PEM");
    let mut builder = Http::builder().tls_certs_only([trusted]);
    if let Some(pair) = pair {
        let pem = format!("{}{}", pair.certificate, pair.key);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).expect("PEM"));
    }
    Http::with(builder, &format!("https://{address}"))
}
