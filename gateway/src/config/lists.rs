//! Lists of tables, `[[name]]`: each entry is a [`Part`] of its own.

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

use super::{
    layers::inline,
    problems::{Problems, did_you_mean, show},
    settings::{Description, Part, Reader, Table},
};

/// One table of a list.
pub(super) trait Entry: Part {
    /// Keys that every entry has, and what for.
    const REQUIRED: &'static [(&'static str, &'static str)];
    /// The list as a variable of the environment has it, in a message.
    const AS_TEXT: &'static str;

    /// The entry that the reference shows.
    fn example() -> Self;
}

impl<T: Entry> Part for Vec<T> {
    fn read(reader: &mut Reader<'_>) -> Self {
        let Some(value) = reader.value() else {
            return Self::new();
        };
        // The environment and the flags have the whole list in one text.
        let from_text = match &value.kind {
            ValueKind::String(text) => inline(text, value.origin().unwrap_or_default()),
            _ => None,
        };
        let path = reader.path().to_owned();
        let ValueKind::Array(entries) = &from_text.as_ref().unwrap_or(value).kind else {
            let wrong = format!("must be a list of tables, [[{path}]] in a file, or the like of {}", T::AS_TEXT);
            // As it may hold a secret, a text is not shown.
            let shown = match &value.kind {
                ValueKind::String(_) => "\"…\"".to_owned(),
                other => show(other),
            };
            reader.problems.add_value(&path, &shown, value.origin(), &wrong);
            return Self::new();
        };
        let names: Vec<_> = T::example().describe().keys.into_iter().map(|key| key.name).collect();
        let read = |(index, entry): (usize, &Value)| {
            let path = format!("{path}[{index}]");
            let origin = entry.origin();
            let ValueKind::Table(table) = &entry.kind else {
                let required: Vec<_> = T::REQUIRED.iter().map(|(name, _)| format!("`{name}`")).collect();
                let wrong = format!("must be a table with at least {}", required.join(" and "));
                reader.problems.add_value(&path, &show(&entry.kind), origin, &wrong);
                return None;
            };
            refuse_unknown(&path, table, &names, reader.problems);
            for (name, purpose) in T::REQUIRED.iter().filter(|(name, _)| !table.contains_key(*name)) {
                let place = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
                reader.problems.add(&path, format!("{path}.{name} is missing{place}: {purpose}"));
            }
            Some(T::read(&mut Reader::at(path, Some(entry), reader.problems)))
        };
        entries.iter().enumerate().filter_map(read).collect()
    }

    fn describe(&self) -> Description {
        Description { list: true, ..T::example().describe() }
    }

    fn json(&self) -> Json {
        self.iter().map(Part::json).collect()
    }
}

pub(super) fn refuse_unknown(path: &str, table: &Table, known: &[&str], problems: &mut Problems) {
    let mut unknown: Vec<_> = table.iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
    unknown.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in unknown {
        let place = value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default();
        let hint = did_you_mean(name, known.iter().copied());
        problems.add(path, format!("unknown key {path}.{name}{place}{hint}"));
    }
}
