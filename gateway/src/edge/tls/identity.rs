//! What the gateway is on TLS connections, made of files: its certificate and key, and whose clients it knows.

use super::{HTTP1, HTTP2, certificate};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where everything is, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, then those that lead to the authority that clients know.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are believed.
    pub client_ca: Option<PathBuf>,
}

/// One of [`Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Certificate,
    Key,
    ClientCa,
}

impl File {
    /// The name of the setting that names the file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Certificate => "tls.certificate",
            Self::Key => "tls.key",
            Self::ClientCa => "tls.client_ca",
        }
    }
}

/// What is wrong with a file. Says nothing of what stands in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} = {path:?}: {why}", .file.key())]
pub struct InvalidFile {
    pub file: File,
    pub path: PathBuf,
    pub why: String,
}

/// The bytes of a file, and where they are from.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    file: File,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What stands in the files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Content,
    key: Content,
    client_ca: Option<Content>,
}

/// What connections are accepted with.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// Until when the certificate is valid, in seconds since 1970.
    pub(super) expires: i64,
}

impl Content {
    fn read(file: File, path: &Path) -> Result<Self, InvalidFile> {
        match crate::files::read(path) {
            Ok(bytes) => Ok(Self { file, path: path.to_owned(), bytes }),
            Err(error) => Err(InvalidFile { file, path: path.to_owned(), why: format!("cannot be read: {error}") }),
        }
    }

    fn wrong(&self, why: impl fmt::Display) -> InvalidFile {
        InvalidFile { file: self.file, path: self.path.clone(), why: why.to_string() }
    }

    /// All certificates in it: one at least.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, InvalidFile> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let read = read.map_err(|error| self.wrong(format!("cannot be read as PEM: {error}")))?;
        if read.is_empty() {
            return Err(self.wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)"));
        }
        Ok(read)
    }
}

impl Contents {
    /// Blocks while it reads.
    pub(super) fn read(files: &Files) -> Result<Self, InvalidFile> {
        let client_ca = files.client_ca.as_deref().map(|path| Content::read(File::ClientCa, path)).transpose()?;
        Ok(Self {
            certificate: Content::read(File::Certificate, &files.certificate)?,
            key: Content::read(File::Key, &files.key)?,
            client_ca,
        })
    }
}

impl Identity {
    pub(super) fn of(contents: &Contents) -> Result<Self, InvalidFile> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let Contents { certificate, key, client_ca } = contents;
        let chain = certificate.certificates()?;
        let expires = certificate::expires(&chain[0]).ok_or_else(|| certificate.wrong("is no X.509 certificate"))?;
        let secret = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|_| key.wrong("there is no private key in it that can be read (-----BEGIN PRIVATE KEY-----)"))?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate.wrong(error))?;
        let config = match client_ca {
            Some(authorities) => config.with_client_cert_verifier(verifier(authorities, provider)?),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(chain, secret).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => key.wrong("does not belong to the certificate in tls.certificate"),
            other => certificate.wrong(format!("cannot be used with that key: {other}")),
        })?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // So that clients that come back cost less, and nothing is kept for them here. With other files there are other
        // keys for this, and nobody comes back as whom they no longer are.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| certificate.wrong(error))?;
        Ok(Self { config: Arc::new(config), expires })
    }
}

/// Lets clients in without a certificate, and with one of these authorities.
fn verifier(authorities: &Content, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, InvalidFile> {
    let mut roots = RootCertStore::empty();
    for authority in authorities.certificates()? {
        roots.add(authority).map_err(|error| authorities.wrong(format!("has no authority's certificate: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| authorities.wrong(error))
}
