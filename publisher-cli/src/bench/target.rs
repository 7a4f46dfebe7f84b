//! Where requests go, and what they look like.

use super::template::{Template, Values};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
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

    /// The whole URL.
    pub(super) fn url(&self, values: Values<'_>) -> String {
        let mut path = Vec::new();
        self.path.render(values, &mut path);
        format!("http://{}{}", self.authority, String::from_utf8_lossy(&path))
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

/// A channel's name as a part of a URL.
pub(super) fn in_url(name: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
    utf8_percent_encode(name, KEPT).to_string()
}

/// `Name: value`.
#[derive(Clone, Debug)]
pub struct Header {
    name: HeaderName,
    value: HeaderValue,
}

impl Header {
    /// A parser for clap.
    ///
    /// # Errors
    /// When it is no header.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is 'Name: value'")?;
        let (name, value) = (name.trim(), value.trim());
        let name = HeaderName::try_from(name).map_err(|error| format!("{name:?}: {error}"))?;
        let value = HeaderValue::try_from(value).map_err(|error| format!("{value:?}: {error}"))?;
        if [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name) {
            return Err(format!(
                "{name} is written anyway, as the URL and the body need it; a second one would not do"
            ));
        }
        Ok(Self { name, value })
    }
}

/// The given headers, and of the defaults those that are not given.
pub(super) fn headers(defaults: &[(HeaderName, &'static str)], given: &[Header]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for Header { name, value } in given {
        all.append(name.clone(), value.clone());
    }
    for (name, value) in defaults {
        all.entry(name).or_insert(HeaderValue::from_static(value));
    }
    all
}

pub(super) fn write_header(name: &str, value: &[u8], into: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        into.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_with_its_placeholders() {
        let values = Values { channel: &in_url("a b/c"), number: 3, data: b"" };
        for (url, request) in [
            ("http://h:81/x?c={channel}&n={n}", "GET /x?c=a%20b%2Fc&n=3 HTTP/1.1\r\nhost: h:81\r\n"),
            ("http://h", "GET / HTTP/1.1\r\nhost: h\r\n"),
            ("http://[::1]:80?x", "GET /?x HTTP/1.1\r\nhost: [::1]:80\r\n"),
        ] {
            let mut bytes = Vec::new();
            Target::parse(url).expect("a URL").begin("GET", values, &mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes), request);
        }
        for nonsense in ["", "https://h/", "http:///x", "http://{channel}/", "http://u@h/", "h:80"] {
            assert!(Target::parse(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(Target::parse("http://127.0.0.1").and_then(|url| url.resolve()).map(|a| a.port()), Ok(80));
    }

    #[test]
    fn a_given_header_beats_the_default() {
        let given = [Header::parse("Accept: x/y").expect("a header")];
        let defaults = [(hyper::header::ACCEPT, "text/event-stream"), (hyper::header::ACCEPT_ENCODING, "gzip")];
        let all = headers(&defaults, &given);
        assert_eq!((all["accept"].as_bytes(), all["accept-encoding"].as_bytes()), (&b"x/y"[..], &b"gzip"[..]));
        for nonsense in ["", "x", "a b: c", "a: b\nc", "Content-Length: 5", "host: x"] {
            assert!(Header::parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
