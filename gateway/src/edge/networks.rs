//! Networks as operators list them: `10.0.0.0/8`, or one address.

use ipnet::IpNet;
use std::{fmt, net::IpAddr};

/// Some networks, perhaps none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// One network, which prints as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network(IpNet);

impl Networks {
    /// Reads each entry.
    ///
    /// # Errors
    /// The first that is neither a network nor an address, with what is wrong.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, String> {
        entries.iter().map(|entry| network(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them. `::ffff:10.0.0.1` is `10.0.0.1`.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }

    /// As they are written.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Network::to_string)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

fn network(text: &str) -> Result<Network, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Network(address.to_canonical().into()));
    }
    let network: IpNet = text.parse().map_err(|_| format!("{text:?} is neither a network nor an address"))?;
    // Was the address meant, or the network? The wrong guess would trust strangers.
    if network.trunc() != network {
        return Err(format!("{text:?} is an address within {}", network.trunc()));
    }
    Ok(Network(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_or_not() {
        let networks = Networks::parse(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"]).expect("networks");
        for inside in ["10.0.0.0", "10.255.1.2", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8:1::7", "::1"] {
            assert!(networks.contain(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.2", "2001:db9::1", "::2", "::ffff:11.1.2.3", "::a00:1"] {
            assert!(!networks.contain(outside.parse().expect("an address")), "{outside}");
        }
        assert!(!Networks::default().contain("127.0.0.1".parse().expect("an address")), "none holds nobody");
    }

    #[test]
    fn what_could_be_meant_in_two_ways_is_refused() {
        for wrong in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/8 ", "::1/0"] {
            assert!(Networks::parse(&[wrong]).is_err(), "{wrong}");
        }
        let written = ["10.0.0.0/8", "127.0.0.1", "::1", "0.0.0.0/0"];
        assert!(Networks::parse(&written).expect("networks").texts().eq(written));
    }
}
