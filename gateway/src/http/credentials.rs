//! Where a request carries its token: `Authorization`, `token=` in the query, or a cookie, in this order.

use super::{problem::Problem, query::Query};
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap};
use std::borrow::Cow;

/// Another way than `Authorization` for API keys.
const API_KEY: &str = "x-api-key";

/// A token as it was presented.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presented<'a> {
    pub(super) token: Cow<'a, str>,
    /// The browser has added it by itself, whatever page made the request.
    pub(super) by_cookie: bool,
}

/// The token of a request, if it has one.
///
/// # Errors
/// When what is there is no token, or there are several where one may be: it is never taken for none.
pub(super) fn presented<'a>(
    headers: &'a HeaderMap,
    query: &'a Query,
    cookie: &str,
) -> Result<Option<Presented<'a>>, Problem> {
    let wrong = || Problem::invalid_token("give one token, as `Authorization: Bearer <token>`");
    let mut given = headers.get_all(AUTHORIZATION).iter().chain(headers.get_all(API_KEY));
    if let Some(value) = given.next() {
        let text = value.to_str().map_err(|_| wrong())?;
        let token = if headers.contains_key(AUTHORIZATION) {
            let (scheme, token) = text.split_once(' ').ok_or_else(wrong)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(wrong());
            }
            token.trim_start()
        } else {
            text
        };
        if token.is_empty() || given.next().is_some() {
            return Err(wrong());
        }
        return Ok(Some(Presented { token: token.into(), by_cookie: false }));
    }
    if let Some(token) = query.one("token")? {
        return Ok(Some(Presented { token: token.into(), by_cookie: false }));
    }
    let mut found: Option<&str> = None;
    for value in headers.get_all(COOKIE) {
        // Others' cookies may hold any bytes.
        for one in value.as_bytes().split(|&byte| byte == b';') {
            let Some(at) = one.iter().position(|&byte| byte == b'=') else { continue };
            if one[..at].trim_ascii() != cookie.as_bytes() {
                continue;
            }
            let token = std::str::from_utf8(&one[at + 1..]).map_err(|_| wrong())?.trim().trim_matches('"');
            // Two of one name come from two hosts or paths, and one of them may be somebody else's.
            if found.replace(token).is_some_and(|other| other != token) {
                return Err(wrong());
            }
        }
    }
    Ok(found.map(|token| Presented { token: token.into(), by_cookie: true }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn of(headers: &[(&'static str, &'static str)], query: &str) -> Result<Option<(String, bool)>, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let Ok(query) = Query::parse(Some(query)) else { panic!("a query") };
        let found = presented(&map, &query, "sluice").map_err(|problem| problem.status)?;
        Ok(found.map(|found| (found.token.into_owned(), found.by_cookie)))
    }

    #[test]
    fn a_token_stands_in_one_of_three_places() {
        let got = |token: &str, by_cookie| Ok(Some((token.to_owned(), by_cookie)));
        assert_eq!(of(&[], ""), Ok(None));
        assert_eq!(of(&[("authorization", "Bearer a.b.c")], ""), got("a.b.c", false));
        assert_eq!(of(&[("authorization", "bEARER  a.b.c")], "token=x"), got("a.b.c", false));
        assert_eq!(of(&[("x-api-key", "k")], ""), got("k", false));
        assert_eq!(of(&[("cookie", "sluice=c; a=b")], "token=x"), got("x", false));
        assert_eq!(of(&[("cookie", "xsluice=a; sluice=c;sluice2=d")], ""), got("c", true));
        assert_eq!(of(&[("cookie", "a=b"), ("cookie", "sluice=\"c\"")], ""), got("c", true));
        assert_eq!(of(&[("cookie", "sluice=c; sluice=c")], ""), got("c", true));
        assert_eq!(of(&[("cookie", "a=b")], ""), Ok(None));
        assert_eq!(of(&[("cookie", "a=ü; sluice=c")], ""), got("c", true));
        assert_eq!(of(&[("cookie", "a=ü")], ""), Ok(None), "another application's");
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_none() {
        for headers in [
            &[("authorization", "Basic YTpi")][..],
            &[("authorization", "a.b.c")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer")],
            &[("authorization", "")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("authorization", "Bearer a"), ("x-api-key", "b")],
            &[("x-api-key", "")],
            &[("cookie", "sluice=a; sluice=b")],
        ] {
            assert_eq!(of(headers, ""), Err(401), "{headers:?}");
        }
        assert_eq!(of(&[], "token=a&token=b"), Err(400));
        assert_eq!(of(&[], "token="), Ok(Some((String::new(), false))), "and is refused as every bad token is");
    }
}
