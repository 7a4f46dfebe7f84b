//! Where values come from: a file, the environment, flags. Each becomes a layer of known keys, and the `config` crate
//! lays one over the other.
//!
//! Only known keys get into a layer. That is for the user, who is told of the others, and for safety: the crate takes
//! a key for a path, and would follow `a[999999999]` into an array of that many entries.

use std::path::Path;

use ::config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{
    problems::{Problems, did_you_mean, show},
    settings::{Description, Table},
};

const ENV_PREFIX: &str = "SLUICE_";

/// Names with our prefix that are the command line client's: no settings, and no mistakes.
const NOT_SETTINGS: [&str; 3] = ["SLUICE_CONFIG", "SLUICE_URL", "SLUICE_TOKEN"];

/// The keys that exist.
pub(super) struct Known {
    sections: Vec<&'static str>,
    /// Full paths: `redis.url`, `listen`, and `channel` for the whole list.
    paths: Vec<String>,
}

impl Known {
    pub(super) fn of(tree: &Description) -> Self {
        let mut paths: Vec<_> = tree.keys.iter().map(|key| key.name.to_owned()).collect();
        let mut sections = Vec::new();
        for (name, part) in &tree.parts {
            if part.list {
                paths.push((*name).to_owned());
            } else {
                sections.push(*name);
                paths.extend(part.keys.iter().map(|key| format!("{name}.{}", key.name)));
                paths.extend(part.parts.iter().map(|(list, _)| format!("{name}.{list}")));
            }
        }
        Self { sections, paths }
    }

    #[cfg(test)]
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    fn has(&self, path: &str) -> bool {
        self.paths.iter().any(|known| known == path)
    }

    fn hint(&self, path: &str) -> String {
        did_you_mean(path, self.paths.iter().map(String::as_str))
    }
}

/// Values of known keys by path, each with its origin for messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Lays each layer over those before it, key by key.
pub(super) fn merge(layers: [Layer; 3], problems: &mut Problems) -> Table {
    let builder = layers.into_iter().fold(::config::Config::builder(), |builder, layer| builder.add_source(layer));
    builder.build().and_then(|merged| merged.collect()).unwrap_or_else(|error| {
        problems.add("", error.to_string());
        Table::default()
    })
}

/// Reads a file. `None` if it cannot be read or is no TOML; unknown keys are problems, but leave the others.
pub(super) fn from_file(path: &Path, known: &Known, problems: &mut Problems) -> Option<Layer> {
    let name = path.display().to_string();
    let text = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            problems.add("", format!("{name}:{}: not UTF-8", line_and_column(valid, valid.len())));
            return None;
        }
        Err(error) => {
            problems.add("", format!("{name}: cannot be read: {error}"));
            return None;
        }
    };
    let (document, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        // The error's own text would show the line, and with it, perhaps, a password.
        let at = error.span().map_or(text.len(), |span| span.start);
        problems.add("", format!("{name}:{}: {}", line_and_column(text.as_bytes(), at), error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let origin = |at: usize| format!("{name}:{}", line(text.as_bytes(), at));
    let mut layer = Layer::default();
    let mut take = |path: String, at: usize, value: &DeValue<'_>, problems: &mut Problems| {
        if known.has(&path) {
            layer.0.insert(path, convert(value, at, &origin));
        } else {
            problems.add(&path, format!("unknown key {path} ({}){}", origin(at), known.hint(&path)));
        }
    };
    for (key, value) in document.get_ref() {
        let at = key.span().start;
        let section = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(table) if known.sections.contains(&section) => {
                for (key, value) in table {
                    take(format!("{section}.{}", key.get_ref()), key.span().start, value.get_ref(), problems);
                }
            }
            other if known.sections.contains(&section) => {
                let shown = show(&convert(other, at, &origin).kind);
                let wrong = format!("is a section of settings, written [{section}]");
                problems.add_value(section, &shown, Some(&origin(at)), &wrong);
            }
            other => take(section.to_owned(), at, other, problems),
        }
    }
    Some(layer)
}

/// Reads `SLUICE_<PATH>`, a path's dots written as `__`. Names that are no settings are warnings and not errors:
/// Kubernetes makes `SLUICE_PORT` and others in the pods beside a service of that name.
pub(super) fn from_env(env: &[(String, String)], known: &Known, warnings: &mut Vec<String>) -> Layer {
    let names: Vec<_> = known.paths.iter().map(|path| env_name(path)).collect();
    let mut layer = Layer::default();
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
        match names.iter().position(|known| known == name) {
            Some(index) => {
                layer.0.insert(known.paths[index].clone(), Value::new(Some(name), value.as_str()));
            }
            None if NOT_SETTINGS.contains(&name.as_str()) => {}
            None => {
                let hint = did_you_mean(name, names.iter().map(String::as_str));
                warnings.push(format!("environment variable {name} is no setting and is ignored{hint}"));
            }
        }
    }
    layer
}

/// The environment variable of a key.
pub(super) fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// Reads flags, given by their keys' paths.
pub(super) fn from_flags(flags: &[(String, String)], known: &Known, problems: &mut Problems) -> Layer {
    let origin = "command line".to_owned();
    let mut layer = Layer::default();
    for (path, value) in flags {
        if known.has(path) {
            layer.0.insert(path.clone(), Value::new(Some(&origin), value.as_str()));
        } else {
            problems.add(path, format!("unknown key {path} ({origin}){}", known.hint(path)));
        }
    }
    layer
}

/// A TOML value that is given as text, as the environment gives a list.
pub(super) fn inline(text: &str, origin: &str) -> Option<Value> {
    DeValue::parse(text).ok().map(|value| convert(value.get_ref(), 0, &|_| origin.to_owned()))
}

/// The value as the `config` crate has it. `origin` says where a byte of the file stands, `at` being this value's.
fn convert(value: &DeValue<'_>, at: usize, origin: &dyn Fn(usize) -> String) -> Value {
    let kind = match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        // A number that fits no setting is kept as text, and refused where it is used.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| ValueKind::String(number.to_string()), ValueKind::I64),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| ValueKind::String(number.to_string()), ValueKind::Float)
        }
        DeValue::Datetime(time) => ValueKind::String(time.to_string()),
        DeValue::Array(entries) => {
            ValueKind::Array(entries.iter().map(|entry| convert(entry.get_ref(), entry.span().start, origin)).collect())
        }
        DeValue::Table(table) => ValueKind::Table(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), convert(value.get_ref(), key.span().start, origin)))
                .collect(),
        ),
    };
    Value::new(Some(&origin(at)), kind)
}

fn line(text: &[u8], at: usize) -> usize {
    1 + text[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// Both counted from 1, the column in characters.
fn line_and_column(text: &[u8], at: usize) -> String {
    let before = &text[..at.min(text.len())];
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    format!("{}:{column}", line(text, at))
}
