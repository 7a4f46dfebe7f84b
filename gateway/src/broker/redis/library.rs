//! The text of the function library, and what an installed one says of itself.
//!
//! The text is code that all installations share, below three lines that are an installation's own: the version, the
//! prefixes with the most bytes of data that each allows, and how events are announced.

use std::{collections::BTreeMap, fmt::Write};

/// Rises with every change of the code, so that an older build never replaces a newer one's.
pub(super) const VERSION: u32 = 4;
/// The most bytes of an event's data under a prefix whose gateways did not say.
pub const DEFAULT_MAX_BYTES: usize = 64 << 10;

const HEAD: &str = "#!lua name=sluice\n\
    -- Durable publishing straight to Redis, installed by Sluice; see `sluice redis install --help`.\n";
const VERSION_LINE: &str = "local VERSION = ";
const PREFIXES_LINE: &str = "local PREFIXES = ";
const CODE: &str = concat!(include_str!("core.lua"), include_str!("direct.lua"), include_str!("function.lua"));

/// Names begin with these; each with the most bytes of an event's data.
pub(super) type Prefixes = BTreeMap<String, usize>;

pub(super) fn text(prefixes: &Prefixes, cluster: bool) -> String {
    let mut text = format!("{HEAD}{VERSION_LINE}{VERSION}\n{PREFIXES_LINE}{{");
    for (index, (prefix, max_bytes)) in prefixes.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string does not fail; a prefix has no quote and no backslash.
        let _ = write!(text, "{comma}[\"{prefix}\"] = {max_bytes}");
    }
    let announce = if cluster { "SPUBLISH" } else { "PUBLISH" };
    let _ = write!(text, "}}\nlocal DEFAULT_MAX_BYTES = {DEFAULT_MAX_BYTES}\nlocal ANNOUNCE = '{announce}'\n\n{CODE}");
    text
}

/// Version and prefixes of an installed library; `None` if it is not one of ours.
pub(super) fn read(text: &str) -> Option<(u32, Prefixes)> {
    let line = |begin| text.lines().find_map(|line| line.strip_prefix(begin));
    let version = line(VERSION_LINE)?.trim().parse().ok()?;
    let listed = line(PREFIXES_LINE)?.trim().strip_prefix('{')?.strip_suffix('}')?;
    let entry = |entry: &str| {
        let (prefix, max_bytes) = entry.trim().strip_prefix("[\"")?.split_once("\"] = ")?;
        Some((prefix.to_owned(), max_bytes.parse().ok()?))
    };
    // No prefix has a comma.
    let prefixes = listed.split(',').map(entry).collect::<Option<_>>()?;
    Some((version, prefixes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn what_is_written_is_read() {
        let prefixes = Prefixes::from([("sluice:".to_owned(), 65536), ("a]=1:".to_owned(), 9), (String::new(), 1)]);
        assert_eq!(read(&text(&prefixes, false)), Some((VERSION, prefixes)));
        assert_eq!(read("#!lua name=sluice\nlocal VERSION = 1"), None);
    }

    #[test]
    fn a_change_of_the_code_is_a_new_version() {
        let digest: String = Sha256::digest(CODE)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let known =
            [(1, "c88ff26b85efaad5"), (2, "c9523dae38171055"), (3, "5fe2963f4365d9c4"), (4, "abaf402eff7e14c0")];
        let told = "the library's code changed: raise VERSION and add its digest here (keep the older ones)";
        assert_eq!(known.last(), Some(&(VERSION, digest.as_str())), "{told}");
    }
}
