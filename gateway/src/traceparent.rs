//! Which span of a publisher's trace an event comes from, as the `traceparent` of W3C Trace Context has it. It travels
//! with the event through Redis, so that whoever delivers or receives it can go on with the trace.

use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::fmt;

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// A valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

/// Nothing but this one header.
struct Alone<'a>(&'a str);

impl Extractor for Alone<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Traceparent {
    /// `None` for what is none, which is ignored everywhere, as the standard says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let read = TraceContextPropagator::new().extract(&Alone(text));
        let span = read.span();
        Self::of(span.span_context())
    }

    /// `None` for the context of no span.
    #[must_use]
    pub fn of(context: &SpanContext) -> Option<Self> {
        context.is_valid().then(|| Self {
            trace: context.trace_id(),
            span: context.span_id(),
            flags: context.trace_flags(),
        })
    }

    /// The same as a parent from elsewhere.
    #[must_use]
    pub fn context(&self) -> SpanContext {
        SpanContext::new(self.trace, self.span, self.flags, true, TraceState::NONE)
    }

    /// Whether somebody keeps the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags & TraceFlags::SAMPLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_one_is_written_as_it_was_read() {
        for flags in ["00", "01"] {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            let read = Traceparent::parse(&text).expect("valid");
            assert_eq!((read.to_string(), read.is_sampled()), (text, flags == "01"));
            assert_eq!(Traceparent::of(&read.context()), Some(read));
        }
        let later = Traceparent::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else");
        assert_eq!(later.map(|read| read.to_string().len()), Some(55), "a later version is read as far as it is known");
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_of_a_trace_or_none(text in "\\PC{0,80}|[0-9a-f]{2}-[0-9a-fA-F\n]{30,34}-[0-9a-f]{14,18}-[0-9a-f]{1,3}") {
            if let Some(read) = Traceparent::parse(&text) {
                let written = read.to_string();
                prop_assert_eq!(Traceparent::parse(&written), Some(read));
                prop_assert!(written.len() == 55 && written.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
            }
        }
    }
}
