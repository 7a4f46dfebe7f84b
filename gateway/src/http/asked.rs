//! What a stream's request asks for: its form, its channels, and where in each of them the client stands.
//!
//! Only the request is looked at, and who sends it; whether there is room for the stream is for others to say.

use super::{
    negotiate::{self, Form},
    problem::Problem,
    query::Query,
};
use crate::{
    auth::Identity,
    channel::{ALL, Channel},
    hub::connection::{Greeting, Heartbeat, Start},
    sse::{
        cursor::{Cursor, Found},
        frame::Format,
    },
};
use hyper::HeaderMap;
use std::borrow::Cow;

/// A request's wishes, all of them allowed.
pub(super) struct Asked {
    pub(super) form: Form,
    pub(super) format: Format,
    pub(super) heartbeat: Heartbeat,
    pub(super) greeting: Greeting,
    /// No channel stands here twice, and `$all` is among them.
    pub(super) channels: Vec<(Channel, Start)>,
}

impl Asked {
    /// Reads a request of `identity`, which may ask for `most` channels, each of which `may` lets it read.
    pub(super) fn of(
        headers: &HeaderMap,
        query: &Query,
        identity: &Identity,
        most: usize,
        may: impl Fn(&Channel) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let form = negotiate::form(headers)?;
        let greeting = match (form, query.switch("hello")?) {
            (Form::Poll, _) => Greeting::Cursor,
            (_, true) => Greeting::Hello,
            (_, false) => Greeting::Plain,
        };
        let format = match (form, query.switch("envelope")?) {
            (Form::Sse, false) => Format::Sse,
            (Form::Sse, true) => Format::Envelope,
            (Form::Ndjson | Form::Poll, _) => Format::Ndjson,
        };
        let heartbeat = match query.one("heartbeat")? {
            None | Some("comment") => Heartbeat::Comment,
            Some("event") => Heartbeat::Event,
            Some(other) => {
                return Err(Problem::invalid_request(format!("`heartbeat` is `event` or `comment`, not {other:?}")));
            }
        };
        let since = query.since()?;
        let cursor = given_cursor(headers, query)?.as_deref().map(Cursor::parse);
        let start = |channel: &Channel| match cursor.as_ref().map(|cursor| cursor.find(channel)) {
            Some(Found::At(position)) => Start::After(position),
            Some(Found::Unreadable) => Start::Unreadable,
            Some(Found::New) | None => since.map_or(Start::Live, Start::Since),
        };
        let mut channels: Vec<(Channel, Start)> = Vec::new();
        for name in query.all("channel") {
            let channel = Channel::new(name).map_err(|error| Problem::invalid_channel(error.to_string()))?;
            if channel.is_reserved() && channel.as_str() != ALL {
                return Err(Problem::forbidden(format!("{channel} is reserved: it is joined without being asked for")));
            }
            if channels.iter().any(|(known, _)| *known == channel) {
                continue;
            }
            // Whoever has a token is let in and joins `$all` then; for others it is a channel like any other.
            if channel.as_str() != ALL || identity.grants.is_none() {
                may(&channel)?;
            }
            if channels.len() == most {
                let asked = query.all("channel").count();
                let detail = format!("{asked} channels in one stream, where {most} are allowed");
                return Err(Problem::invalid_request(detail));
            }
            let start = start(&channel);
            channels.push((channel, start));
        }
        for channel in joined(identity) {
            if !channels.iter().any(|(known, _)| *known == channel) {
                let start = start(&channel);
                channels.push((channel, start));
            }
        }
        if channels.is_empty() {
            return Err(Problem::invalid_channel("name at least one channel, as in /events?channel=news"));
        }
        if !channels.iter().any(|(channel, _)| channel.as_str() == ALL) {
            channels.push((Channel::all(), Start::Live));
        }
        Ok(Self { form, format, heartbeat, greeting, channels })
    }
}

/// The channels that a stream has without asking for them, beside `$all`.
fn joined(identity: &Identity) -> impl Iterator<Item = Channel> {
    let granted = identity.grants.iter().flat_map(|grants| grants.join.iter().cloned());
    let own = identity.subject.as_deref().and_then(|subject| Channel::of_user(subject).ok());
    granted.chain(own)
}

/// Where the client says it stands. The header beats the query: the URL of an EventSource stays as it was when the page
/// was loaded, while the header moves on.
pub(super) fn given_cursor<'a>(headers: &'a HeaderMap, query: &'a Query) -> Result<Option<Cow<'a, str>>, Problem> {
    if let Some(header) = headers.get("last-event-id").filter(|header| !header.is_empty()) {
        return Ok(Some(String::from_utf8_lossy(header.as_bytes())));
    }
    Ok(query.one("lastEventId")?.filter(|text| !text.is_empty()).map(Cow::Borrowed))
}
