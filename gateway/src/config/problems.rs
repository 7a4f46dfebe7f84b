//! What is wrong with a configuration, collected so that it can be said at once.
//!
//! A problem is one line that names the key, the value and what is allowed. Secrets never get in: who adds a problem
//! passes the value as it may be shown.

use ::config::ValueKind;

/// How much of a text is shown in a message, in characters: enough to recognise it.
const SHOWN_CHARS: usize = 100;

/// Everything that is wrong with a configuration; shown as one line for each problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The problems, one line each.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[derive(Debug, Default)]
pub(super) struct Problems {
    /// The key that a problem is about (empty if about none), and the line that says it.
    found: Vec<(String, String)>,
}

impl Problems {
    /// Adds a problem that the line itself says in full.
    pub(super) fn add(&mut self, key: &str, line: impl Into<String>) {
        // A line is a line, whatever bytes a file has in its keys.
        let line = line.into().replace(char::is_control, " ");
        self.found.push((key.to_owned(), line));
    }

    /// Adds a problem of one value.
    pub(super) fn add_value(&mut self, key: &str, shown: &str, origin: Option<&str>, wrong: &str) {
        let origin = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
        self.add(key, format!("{key} = {shown}{origin}: {wrong}"));
    }

    /// Whether the key, or one beneath it, was found to be wrong, and therefore holds a default nobody asked for.
    pub(super) fn concern(&self, key: &str) -> bool {
        self.found.iter().any(|(found, _)| {
            found.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    pub(super) fn into_result<T>(self, valid: T) -> Result<T, ConfigErrors> {
        if self.found.is_empty() {
            return Ok(valid);
        }
        Err(ConfigErrors(self.found.into_iter().map(|(_, line)| line).collect()))
    }
}

/// A value as a message shows it.
pub(super) fn show(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => show_text(text),
        ValueKind::Table(_) => "{…}".to_owned(),
        ValueKind::Array(_) => "[…]".to_owned(),
        plain => plain.to_string(),
    }
}

pub(super) fn show_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The known name that was probably meant by an unknown one, as the end of a message; empty if none is near.
pub(super) fn did_you_mean<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |name: &str| match strsim::osa_distance(unknown, name) {
        // The right key in the wrong section, or in none.
        far if far > 1 && last(unknown) == last(name) => 1,
        distance => distance,
    };
    // A third of the letters may be wrong, three at most: beyond that, the guess is more likely to mislead.
    let near = (unknown.chars().count() / 3).clamp(1, 3);
    known
        .map(|name| (distance(name), name))
        .filter(|&(distance, _)| distance <= near)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| format!("; did you mean {name}?"))
        .unwrap_or_default()
}
