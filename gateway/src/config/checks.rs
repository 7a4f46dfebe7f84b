//! What a type cannot say: the form of some texts, what settings must be to each other, and who may reach the gateway.

use std::net::{IpAddr, SocketAddr};

use super::{
    Config, RuleHistory,
    problems::{Problems, show_text},
    settings::Setting,
};
use crate::{auth::key, channel::FORBIDDEN};

/// A secret that is shorter than what it signs with can be guessed from a token (RFC 7518, section 3.2).
const SHORT_SECRET: usize = 32;

/// A prefix stands before channel names inside a Redis hash tag, so it is held to the same characters.
pub(super) fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 64 && prefix.chars().all(|c| c.is_ascii_graphic() && !FORBIDDEN.contains(c))
}

/// A part of what RFC 6265 allows that needs no quoting anywhere.
pub(super) fn is_cookie_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether a browser could send this in `Origin` (RFC 6454, section 6.2); anything else would never match.
pub(super) fn is_origin(origin: &str) -> bool {
    if origin == "*" {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c))
        }
    };
    let is_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
            && !matches!((scheme, port), ("http", "80") | ("https", "443"))
    });
    is_scheme && is_host && is_port
}

/// Whether the log's filter accepts it, and no bare word in it is a misspelt level: the filter would take that for the
/// name of a module and log next to nothing.
pub(super) fn is_web_address(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

pub(super) fn is_log_level(level: &str) -> bool {
    let is_bare_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(word.trim()))
    };
    let words_are_levels =
        level.contains('[') || level.split(',').all(|directive| directive.contains('=') || is_bare_level(directive));
    // Its parser panics on text that is not ASCII.
    level.is_ascii() && words_are_levels && tracing_subscriber::EnvFilter::try_new(level).is_ok()
}

/// What settings must be to each other. One that was found wrong by itself is not compared, as it has a value that
/// nobody asked for.
pub(super) fn across(config: &Config, problems: &mut Problems) {
    at_most(config.stream.retry_min, "stream.retry_min", config.stream.retry_max, "stream.retry_max", problems);
    let event = (config.limits.event_bytes, "limits.event_bytes");
    at_most(event.0, event.1, config.limits.batch_bytes, "limits.batch_bytes", problems);
    at_most(event.0, event.1, config.outbox.max_bytes, "outbox.max_bytes", problems);
    at_most(event.0, event.1, config.memory.max_bytes, "memory.max_bytes", problems);
    at_most(config.limits.batch_bytes, "limits.batch_bytes", config.limits.body_bytes, "limits.body_bytes", problems);
    at_most(config.outbox.max_bytes, "outbox.max_bytes", config.outbox.total_bytes, "outbox.total_bytes", problems);
    at_most(config.hub.tail_bytes, "hub.tail_bytes", config.hub.tail_total_bytes, "hub.tail_total_bytes", problems);

    // A channel is not forgotten while it has events: the last position must outlive them.
    let memory = (config.history.memory, "history.memory");
    at_most(config.history.age, "history.age", memory.0, memory.1, problems);
    for (index, rule) in config.channel.iter().enumerate() {
        if let Some(RuleHistory::Keep { age: Some(age), .. }) = rule.history {
            at_most(age, &format!("channel[{index}].history.age"), memory.0, memory.1, problems);
        }
    }
    distinct_ports(config, problems);
}

fn at_most<T: Setting + PartialOrd>(low: T, low_key: &str, high: T, high_key: &str, problems: &mut Problems) {
    if low > high && !problems.concern(low_key) && !problems.concern(high_key) {
        let (low, high) = (low.toml(), high.toml());
        problems.add(low_key, format!("{low_key} = {low}: must be at most {high_key}, which is {high}"));
    }
}

fn distinct_ports(config: &Config, problems: &mut Problems) {
    let (public, admin) = (config.listen, config.admin_listen);
    let either_is_wrong = problems.concern("listen") || problems.concern("admin_listen");
    let overlap = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
    if public.port() == admin.port() && public.port() != 0 && overlap && !either_is_wrong {
        problems
            .add("admin_listen", format!("admin_listen = \"{admin}\": listen has that port already (\"{public}\")"));
    }
}

/// Refuses addresses that others can reach while nothing keeps them from reading and publishing everything.
pub(super) fn exposure(config: &Config, problems: &mut Problems) {
    if config.auth.open
        || config.auth.has_keys()
        || ["auth.open", "auth.key", "auth.api_key"].iter().any(|key| problems.concern(key))
    {
        return;
    }
    for (key, address) in [("listen", config.listen), ("admin_listen", config.admin_listen)] {
        if !is_loopback(address) {
            let shown = show_text(&address.to_string());
            let wrong = "others can reach this address, and no keys are configured, so that everyone could read and \
                         publish everything; if that is meant, set auth.open = true (--open), else listen on 127.0.0.1";
            problems.add(key, format!("{key} = {shown}: {wrong}"));
        }
    }
}

/// What may be meant, and is better said than found out.
pub(super) fn advice(config: &Config, warnings: &mut Vec<String>) {
    for (index, key) in config.auth.key.iter().enumerate() {
        let secret = key.alg.is_symmetric().then(|| key::secret(key.secret.as_ref(), key.secret_file.as_deref()).ok());
        if secret.flatten().is_some_and(|secret| secret.len() < SHORT_SECRET) {
            warnings.push(format!(
                "auth.key[{index}]: the secret is shorter than {SHORT_SECRET} bytes, and may be guessed from one token"
            ));
        }
        let is_plain = |url: &String| {
            let url = url.strip_prefix("http://")?;
            Some(!["localhost", "127.", "[::1]"].iter().any(|here| url.starts_with(here)))
        };
        if key.jwks_url.as_ref().and_then(is_plain) == Some(true) {
            warnings
                .push(format!("auth.key[{index}].jwks_url begins with http://: whoever is on the way can sign tokens"));
        }
    }
    let proxy = &config.proxy;
    if proxy.protocol && proxy.trusted.is_empty() {
        warnings.push(
            "proxy.protocol = true without proxy.trusted: whoever can connect may say that it is anybody; name the \
             proxies' networks, or see to it that only they can connect"
                .to_owned(),
        );
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        // `::ffff:127.0.0.1` is loopback too.
        IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for origin in
            ["*", "https://a.example", "http://localhost:3000", "http://[::1]:8080", "https://[::1]", "app://x"]
        {
            assert!(is_origin(origin), "{origin}");
        }
        for wrong in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "http://x:0x",
            "https://a:99999",
            "https://u@a.example",
            "https://*.a.example",
            "https://a b",
            "://a",
            "http://[::g]",
            "http://x:",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_level() {
        for level in ["info", "OFF", "warn,sluice_gateway=debug", "[connection]=trace"] {
            assert!(is_log_level(level), "{level}");
        }
        for wrong in ["", "inof", "info, hyper=off", "info,", "sluice_gateway=loud", "hyper"] {
            assert!(!is_log_level(wrong), "{wrong}");
        }
    }
}
