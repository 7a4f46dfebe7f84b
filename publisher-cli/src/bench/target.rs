//! Where requests go, and what they look like.

use super::template::{Template, Values};
use std::net::{SocketAddr, ToSocketAddrs};

/// A URL with placeholders.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port as they were given.
    authority: String,
    path: Template,
}

impl Target {
    /// A parser for clap.
    ///
    /// # Errors
    /// When the text does not begin with `http://` and a host.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("a URL here begins with http:// (TLS is not measured)")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || authority.contains(['{', '@']) {
            return Err(format!("{text:?} names no host"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path: Template::new(&path) })
    }

    /// Another path on the same host.
    pub(super) fn with_path(&self, path: &str) -> Self {
        Self { authority: self.authority.clone(), path: Template::new(path) }
    }

    /// # Errors
    /// When the host has no address.
    pub(super) fn resolve(&self) -> Result<SocketAddr, String> {
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { self.authority.clone() } else { format!("{}:80", self.authority) };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| format!("{}: {error}", self.authority))?;
        addresses.next().ok_or_else(|| format!("{} has no address", self.authority))
    }

    /// Appends a request without a body up to where further headers, or the empty line, follow.
    pub(super) fn begin(&self, method: &str, values: Values<'_>, into: &mut Vec<u8>) {
        into.extend_from_slice(method.as_bytes());
        into.push(b' ');
        self.path.render(values, into);
        into.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        into.extend_from_slice(self.authority.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

/// `Name: value`.
#[derive(Clone, Debug)]
pub struct Header {
    line: String,
}

impl Header {
    /// A parser for clap.
    ///
    /// # Errors
    /// When it is no header.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        use reqwest::header::{HeaderName, HeaderValue};
        let (name, value) = text.split_once(':').ok_or("a header is 'Name: value'")?;
        let (name, value) = (name.trim(), value.trim());
        HeaderName::try_from(name).map_err(|error| format!("{name:?}: {error}"))?;
        HeaderValue::try_from(value).map_err(|error| format!("{value:?}: {error}"))?;
        Ok(Self { line: format!("{name}: {value}\r\n") })
    }

    pub(super) fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.line.as_bytes());
    }
}
