//! How settings are defined: a group of them once, by `settings!`, which makes the struct, its defaults, how it is read
//! and checked, and how it is described.
//!
//! A [`Setting`] is the value of one key, a [`Part`] a group of keys: a section, a list of tables, or the whole tree.

use ::config::{Map, Value, ValueKind};

use super::problems::{Problems, show};

pub(super) type Table = Map<String, Value>;

/// What can be said about a value beyond what is allowed.
pub(super) type Why = Option<String>;

/// The value of one key.
pub(super) trait Setting: Sized {
    /// The text that stands for "not set" where the setting is optional.
    const UNSET: &'static str = "";

    /// What kind of value this is, in words: "a duration".
    fn kind() -> String;

    /// Reads a value; from the environment and the flags it comes as text, whatever its type.
    fn parse(value: &ValueKind) -> Result<Self, Why>;

    /// Reads the value of `key`. A setting with keys of its own reports what is wrong with them itself.
    fn parse_at(_key: &str, value: &Value, _problems: &mut Problems) -> Result<Self, Why> {
        Self::parse(&value.kind)
    }

    /// The value as a TOML file writes it.
    fn toml(&self) -> String;

    /// The value as the admin port shows it.
    fn json(&self) -> serde_json::Value;

    /// A value, right or wrong, as a message may show it.
    fn show(value: &ValueKind) -> String {
        show(value)
    }

    /// Reads and checks the value of `key`; what is wrong goes to `problems`.
    fn read(key: &str, value: &Value, check: &Check<Self>, problems: &mut Problems) -> Option<Self> {
        let why = match Self::parse_at(key, value, problems) {
            Ok(parsed) if (check.accepts)(&parsed) => return Some(parsed),
            Ok(_) => None,
            Err(why) => why,
        };
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let wrong = format!("must be {}{why}", check.allowed());
        problems.add_value(key, &Self::show(&value.kind), value.origin(), &wrong);
        None
    }
}

/// Which values of a setting's type are allowed.
pub(super) struct Check<T> {
    /// In words that follow those of [`Setting::kind`]: "from 1s to 10m".
    words: String,
    accepts: Box<dyn Fn(&T) -> bool>,
}

impl<T: Setting> Check<T> {
    /// What is allowed, in words: "a duration from 1s to 10m".
    pub(super) fn allowed(&self) -> String {
        format!("{} {}", T::kind(), self.words).trim_end().to_owned()
    }
}

/// Every value of the type.
pub(super) fn any<T>() -> Check<T> {
    Check { words: String::new(), accepts: Box::new(|_| true) }
}

/// A range, both ends included.
pub(super) fn within<T: Setting + PartialOrd + 'static>(min: T, max: T) -> Check<T> {
    let plain = |end: &T| end.toml().replace('"', "");
    let words = format!("from {} to {}", plain(&min), plain(&max));
    Check { words, accepts: Box::new(move |value| (&min..=&max).contains(&value)) }
}

/// Whatever `accepts` does, which `words` say.
pub(super) fn that<T: 'static>(words: &str, accepts: fn(&T) -> bool) -> Check<T> {
    Check { words: words.to_owned(), accepts: Box::new(accepts) }
}

/// Not set, or what `check` accepts.
pub(super) fn optional<T: 'static>(check: Check<T>) -> Check<Option<T>> {
    Check { words: check.words, accepts: Box::new(move |value| value.as_ref().is_none_or(&check.accepts)) }
}

/// A group of keys.
pub(super) trait Part: Default {
    fn read(reader: &mut Reader<'_>) -> Self;
    fn describe(&self) -> Description;
    fn json(&self) -> serde_json::Value;
}

/// A [`Part`] in words, with the values that it has.
pub(super) struct Description {
    /// Paragraphs, line by line, as written in the source.
    pub(super) about: &'static [&'static str],
    pub(super) keys: Vec<Key>,
    /// Whether this is a list of tables (`[[name]]`), whose keys are those of an example.
    pub(super) list: bool,
    pub(super) parts: Vec<(&'static str, Description)>,
}

/// One key in words.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static [&'static str],
    pub(super) allowed: String,
    /// Its value in the described part, as TOML.
    pub(super) value: String,
}

/// The merged values of one part, and what is found wrong with them.
pub(super) struct Reader<'a> {
    /// The part's path, empty for the whole tree.
    path: String,
    /// The part's value, if it has any.
    value: Option<&'a Value>,
    table: Option<&'a Table>,
    pub(super) problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    /// For the whole tree.
    pub(super) fn new(table: &'a Table, problems: &'a mut Problems) -> Self {
        Self { path: String::new(), value: None, table: Some(table), problems }
    }

    /// For the part at `path` with that value.
    pub(super) fn at(path: String, value: Option<&'a Value>, problems: &'a mut Problems) -> Self {
        let table = value.and_then(|value| match &value.kind {
            ValueKind::Table(table) => Some(table),
            _ => None,
        });
        Self { path, value, table, problems }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Reads one key: its default if it is absent or wrong.
    pub(super) fn setting<T: Setting>(&mut self, name: &str, check: &Check<T>, default: T) -> T {
        let key = self.path_of(name);
        let value = self.table.and_then(|table| table.get(name));
        value.and_then(|value| T::read(&key, value, check, self.problems)).unwrap_or(default)
    }

    /// Reads a part of this part.
    pub(super) fn part<P: Part>(&mut self, name: &str) -> P {
        let value = self.table.and_then(|table| table.get(name));
        P::read(&mut Reader::at(self.path_of(name), value, self.problems))
    }
}

/// The key that a field stands for: its name, less the `_` that keeps it apart from a keyword (`match_`).
pub(super) fn key_of(field: &'static str) -> &'static str {
    field.trim_end_matches('_')
}

/// Defines a group of settings: for each its text, type, default and [`Check`], then the groups inside it.
///
/// The text is the field's documentation and, line by line, the comment in the reference.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $key:ident: $type:ty = $default:expr, $check:expr; )*
        }
        $( parts { $( pub $part:ident: $part_type:ty, )* } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $type, )*
            $($( pub $part: $part_type, )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $($( $part: <$part_type>::default(), )*)?
                }
            }
        }

        impl $crate::config::settings::Part for $name {
            fn read(reader: &mut $crate::config::settings::Reader<'_>) -> Self {
                use $crate::config::settings::key_of;
                Self {
                    $( $key: reader.setting::<$type>(key_of(stringify!($key)), &$check, $default), )*
                    $($( $part: reader.part(stringify!($part)), )*)?
                }
            }

            fn describe(&self) -> $crate::config::settings::Description {
                use $crate::config::settings::{Check, Description, Key, Setting, key_of};
                Description {
                    about: &[$($about),+],
                    keys: vec![$({
                        let check: Check<$type> = $check;
                        Key {
                            name: key_of(stringify!($key)),
                            about: &[$($doc),+],
                            allowed: check.allowed(),
                            value: Setting::toml(&self.$key),
                        }
                    },)*],
                    list: false,
                    parts: vec![$($( (stringify!($part), self.$part.describe()), )*)?],
                }
            }

            fn json(&self) -> serde_json::Value {
                use $crate::config::settings::{Setting, key_of};
                let mut object = serde_json::Map::new();
                $( object.insert(key_of(stringify!($key)).to_owned(), Setting::json(&self.$key)); )*
                $($( object.insert(stringify!($part).to_owned(), self.$part.json()); )*)?
                serde_json::Value::Object(object)
            }
        }
    };
}
pub(super) use settings;
