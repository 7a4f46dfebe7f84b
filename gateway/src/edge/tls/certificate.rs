//! What a certificate says of whoever presents it.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, ParsedExtension, X509Certificate};

/// A client's certificate, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The name that it is known by: the first URI (as SPIFFE has it) or else DNS name or mail address among its
    /// alternative names, else the common name, else the whole subject.
    pub name: String,
}

impl Certificate {
    pub(super) fn of(der: &CertificateDer<'_>) -> Self {
        // What was verified can be read; if it is too odd for that, it has no name that anybody could have allowed.
        Self { name: X509Certificate::from_der(der).map(|(_, read)| name(&read)).unwrap_or_default() }
    }
}

/// Until when a certificate is valid, in seconds since 1970.
pub(super) fn expires(der: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(der).ok().map(|(_, read)| read.validity().not_after.timestamp())
}

/// Whether its time is over.
pub(super) fn has_expired(der: &CertificateDer<'_>) -> bool {
    expires(der).is_some_and(|expires| expires < ASN1Time::now().timestamp())
}

fn name(certificate: &X509Certificate<'_>) -> String {
    let (mut dns, mut mail) = (None, None);
    let alternatives = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    for alternative in alternatives.flatten() {
        match alternative {
            GeneralName::URI(uri) => return (*uri).to_owned(),
            GeneralName::DNSName(name) => dns = dns.or(Some(*name)),
            GeneralName::RFC822Name(name) => mail = mail.or(Some(*name)),
            _ => {}
        }
    }
    let subject = certificate.subject();
    let common = || subject.iter_common_name().find_map(|name| name.as_str().ok());
    dns.or(mail).or_else(common).map_or_else(|| subject.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn named(names: Vec<SanType>, common: Option<&str>) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let key = KeyPair::generate().expect("a key");
        Certificate::of(params.self_signed(&key).expect("a certificate").der()).name
    }

    #[test]
    fn a_certificate_has_one_name() {
        let text = |text: &str| text.try_into().expect("ASCII");
        let (uri, dns) = (SanType::URI(text("spiffe://example.com/shop")), SanType::DnsName(text("shop.example.com")));
        let mail = SanType::Rfc822Name(text("shop@example.com"));
        assert_eq!(named(vec![mail.clone(), dns.clone(), uri], Some("shop")), "spiffe://example.com/shop");
        assert_eq!(named(vec![mail.clone(), dns], Some("shop")), "shop.example.com");
        assert_eq!(named(vec![mail], Some("shop")), "shop@example.com");
        assert_eq!(named(vec![], Some("shop")), "shop");
        assert_eq!(named(vec![], None), "O=Example");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_have_a_name_or_none(bytes: Vec<u8>) {
            let _ = (Certificate::of(&bytes.clone().into()), expires(&bytes.into()));
        }
    }
}
