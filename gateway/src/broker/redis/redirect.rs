//! What a server of a cluster says that does not have a channel's slot, or not all of it.

use redis::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Another master has it by now.
    Moved,
    /// It is on its way to this one, `host:port`, which already has these keys or is to create them.
    Ask(String),
    /// Some of the keys are here and some are there.
    TryAgain,
}

impl Redirect {
    /// `None` if it is another answer.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let Value::ServerError(error) = answer else { return None };
        match error.code() {
            "MOVED" => Some(Self::Moved),
            "TRYAGAIN" => Some(Self::TryAgain),
            // ASK <slot> <host>:<port>
            "ASK" => Some(Self::Ask(error.details()?.split(' ').nth(1)?.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_told_from_other_answers() {
        let read = |text: &str| Redirect::read(&redis::parse_redis_value(text.as_bytes()).expect("an answer"));
        assert_eq!(read("-MOVED 3999 127.0.0.1:6381\r\n"), Some(Redirect::Moved));
        assert_eq!(read("-ASK 3999 127.0.0.1:6381\r\n"), Some(Redirect::Ask("127.0.0.1:6381".to_owned())));
        assert_eq!(read("-TRYAGAIN Multiple keys request during rehashing of slot\r\n"), Some(Redirect::TryAgain));
        assert_eq!(read("-CLUSTERDOWN Hash slot not served\r\n"), None);
        assert_eq!(read("+OK\r\n"), None);
    }
}
