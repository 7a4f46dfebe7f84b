//! The commented reference of every key, made from the definitions.
//!
//! Text is commented with `# `, keys with a bare `#`: who deletes the `#` before a key has it set. Section heads are
//! not commented out, so that a key lands in its own section.

use super::{
    Config,
    layers::env_name,
    settings::{Description, Key, Part},
};

/// Longest line of text, in characters, beside the comment's two.
const WIDTH: usize = 110;

pub(super) fn toml() -> String {
    let tree = Config::default().describe();
    let sample = env_name("redis.url");
    let mut out = String::new();
    text(&mut out, "Settings of the Sluice gateway. Every key stands here with its default, commented out.");
    text(&mut out, "");
    text(
        &mut out,
        &format!(
            "A setting is taken from a command line flag, else from the environment ({sample} is redis.url), else from \
             the file, else it has its default. Durations have a unit, ms, s, m, h or d (\"250ms\", \"1.5h\"). Sizes \
             are bytes, or have a unit, KB, MB, GB (thousands) or KiB, MiB, GiB (1024s)."
        ),
    );
    out.push('\n');
    keys(&mut out, &tree.keys);
    for (name, part) in tree.parts.iter().filter(|(_, part)| !part.list) {
        section(&mut out, name, part);
    }
    // Last, as what follows a list's head in the user's own file would belong to the list.
    for (name, part) in tree.parts.iter().filter(|(_, part)| part.list) {
        list(&mut out, name, part);
    }
    out
}

fn section(out: &mut String, name: &str, part: &Description) {
    paragraph(out, part.about);
    out.push_str(&format!("[{name}]\n\n"));
    keys(out, &part.keys);
    for (inner, part) in &part.parts {
        list(out, &format!("{name}.{inner}"), part);
        out.push('\n');
    }
}

fn keys(out: &mut String, keys: &[Key]) {
    for key in keys {
        paragraph(out, key.about);
        text(out, &format!("Allowed: {}.", key.allowed));
        out.push_str(&format!("#{} = {}\n\n", key.name, key.value));
    }
}

/// A list has no default to show: an example stands in the text.
fn list(out: &mut String, name: &str, part: &Description) {
    paragraph(out, part.about);
    text(out, &format!("There are none by default. One after the other, each begins with [[{name}]]:"));
    text(out, "");
    out.push_str(&format!("#     [[{name}]]\n"));
    for key in &part.keys {
        out.push_str(&format!("#     {} = {}\n", key.name, key.value));
    }
    for key in &part.keys {
        text(out, "");
        let about: Vec<_> = key.about.iter().map(|line| line.trim()).collect();
        text(out, &format!("{}: {} Allowed: {}.", key.name, about.join(" "), key.allowed));
    }
}

fn paragraph(out: &mut String, lines: &[&str]) {
    let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    text(out, &lines.join(" "));
}

/// A comment, wrapped.
fn text(out: &mut String, words: &str) {
    let mut line = String::new();
    for word in words.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(format!("# {line}").trim_end());
    out.push('\n');
}
