//! What the build is made of: licences that allow it, nothing forbidden, and no crate twice without a reason.
//!
//! The rules are those of `deny.toml`, which `cargo deny` reads as well; this reads what of them can be checked with
//! cargo alone, so that every run of the tests does.

use sluice_tests::process::repository;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

fn rules() -> toml::Table {
    let text = std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    text.parse().expect("TOML")
}

/// The strings of a list, or of its tables the `crate`, less its version.
fn names(rules: &toml::Table, section: &str, key: &str) -> BTreeSet<String> {
    let list = rules.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_array);
    let list = list.unwrap_or_else(|| panic!("deny.toml has {section}.{key}"));
    let name = |entry: &toml::Value| {
        let named = entry.get("crate").unwrap_or(entry).as_str().expect("a name");
        named.split('@').next().unwrap_or_default().to_owned()
    };
    list.iter().map(name).collect()
}

/// What is built on this machine, tests included: name, version, licence.
fn packages() -> BTreeSet<(String, String, String)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = ["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{l}"];
    let output = Command::new(cargo).args(args).current_dir(repository()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let package = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let licence = licence.trim_end_matches(" (*)");
        Some((words.next()?.to_owned(), words.next()?.to_owned(), licence.to_owned()))
    };
    let packages: BTreeSet<_> = text.lines().filter_map(package).collect();
    assert!(packages.len() > 100, "{packages:?}");
    packages
}

/// Whether an SPDX expression can be met with the allowed licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // Brackets change nothing in expressions of the form `(A OR B) AND C`, as AND is looked at first.
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" AND ").all(|all| all.split(" OR ").any(|one| allowed.contains(one.trim())))
}

#[test]
fn every_licence_is_allowed() {
    let allowed = names(&rules(), "licenses", "allow");
    let wrong: Vec<_> = packages().into_iter().filter(|(_, _, licence)| !is_allowed(licence, &allowed)).collect();
    assert!(wrong.is_empty(), "deny.toml does not allow: {wrong:?}");
}

#[test]
fn nothing_forbidden_is_built() {
    let forbidden = names(&rules(), "bans", "deny");
    let wrong: Vec<_> = packages().into_iter().filter(|(name, _, _)| forbidden.contains(name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn no_crate_is_built_in_two_versions_without_a_reason() {
    let skipped = names(&rules(), "bans", "skip");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in packages() {
        versions.entry(name).or_default().insert(version);
    }
    let doubled: BTreeMap<_, _> =
        versions.iter().filter(|(name, versions)| versions.len() > 1 && !skipped.contains(*name)).collect();
    assert!(doubled.is_empty(), "not in bans.skip of deny.toml: {doubled:?}");
    let stale: Vec<_> = skipped.iter().filter(|name| versions.get(*name).is_none_or(|all| all.len() < 2)).collect();
    assert!(stale.is_empty(), "in bans.skip of deny.toml, but built once: {stale:?}");
}

#[test]
fn licence_expressions_are_read_rightly() {
    let allowed = ["MIT", "Apache-2.0"].map(str::to_owned).into();
    for (expression, verdict) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), verdict, "{expression}");
    }
}
