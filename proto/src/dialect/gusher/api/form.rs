//! Parameters of the v1 API: an urlencoded body or the query string, as the original read them (gusher.md §6).

use std::borrow::Cow;

use crate::dialect::contract::{ApiCall, Headers};

/// The parameters of one request.
pub struct FormParams<'a> {
    /// The body, if it says that it is a form.
    body: &'a [u8],
    query: &'a str,
}

impl<'a> FormParams<'a> {
    /// The parameters of `call`. A body of another type counts as empty.
    pub fn of(call: &'a ApiCall<'_>) -> Self {
        let body = if has_type(call.headers, "application/x-www-form-urlencoded") { &call.body[..] } else { &[] };
        Self { body, query: call.query }
    }

    /// The parameters of the query string only.
    pub fn in_query(call: &'a ApiCall<'_>) -> Self {
        Self { body: &[], query: call.query }
    }

    /// The value of `name`; the body wins over the query, and the first over later ones. Empty if it is missing, badly
    /// escaped or not UTF-8.
    pub fn value(&self, name: &str) -> String {
        first(self.body, name)
            .or_else(|| first(self.query.as_bytes(), name))
            .and_then(|value| String::from_utf8(unescape(value)?.into_owned()).ok())
            .unwrap_or_default()
    }
}

/// Is the body of that media type, whatever its parameters?
pub fn has_type(headers: &dyn Headers, wanted: &str) -> bool {
    let given = headers.header("content-type").unwrap_or_default();
    given.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

/// The value of the first pair called `name`, still escaped.
fn first<'a>(form: &'a [u8], name: &str) -> Option<&'a [u8]> {
    form.split(|&byte| byte == b'&').find_map(|pair| {
        let (key, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        unescape(key).is_some_and(|key| *key == *name.as_bytes()).then_some(value)
    })
}

/// `+` is a blank and `%41` an A; `None` if an escape is cut or has other digits.
fn unescape(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Some(Cow::Borrowed(text));
    }
    let digit = |at: usize| text.get(at).and_then(|&byte| (byte as char).to_digit(16));
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'+' => plain.push(b' '),
            b'%' => {
                // two hexadecimal digits make at most 255
                plain.push((digit(at + 1)? << 4 | digit(at + 2)?) as u8);
                at += 2;
            }
            _ => plain.push(byte),
        }
        at += 1;
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(body: &str, query: &str, name: &str) -> String {
        FormParams { body: body.as_bytes(), query }.value(name)
    }

    #[test]
    fn the_body_wins_over_the_query_and_the_first_over_the_rest() {
        assert_eq!(value("data=a&data=b", "data=c", "data"), "a");
        assert_eq!(value("other=a", "data=c&data=d", "data"), "c");
        assert_eq!(value("data=", "data=c", "data"), "");
        assert_eq!(value("data", "data=c", "data"), "");
        assert_eq!(value("", "", "data"), "");
        assert_eq!(value("d%61ta=x", "", "data"), "x");
        assert_eq!(value("Data=x", "", "data"), "");
        assert_eq!(value("data=a=b", "", "data"), "a=b");
    }

    #[test]
    fn escapes_are_strict_and_so_is_utf8() {
        for (escaped, plain) in [
            ("a+b%2Bc", "a b+c"),
            ("%E4%B8%AD", "中"),
            ("中", "中"),
            ("%00", "\0"),
            ("%", ""),
            ("%2", ""),
            ("%zz", ""),
            ("%+1", ""),
            ("%ff", ""),
            ("%C0%80", ""),
            ("ok%", ""),
        ] {
            assert_eq!(value(&format!("data={escaped}"), "", "data"), plain, "{escaped}");
        }
    }
}
