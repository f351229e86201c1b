//! A body of the type `multipart/form-data` (RFC 7578). It is here as a whole, so it is cut where it lies: the parsers that
//! there are read streams.

use std::borrow::Cow;

use crate::{
    dialect::pushex::params::{ParamValue, Params},
    refusal::Refusal,
};

/// The longest boundary; RFC 2046 has 70.
const LONGEST_BOUNDARY: usize = 200;

/// Headers of a part, in bytes.
const MOST_HEADERS: usize = 8 << 10;

/// The fields of `body`; `content_type` has the boundary between them.
///
/// # Errors
///
/// It is malformed, or has too many fields.
pub fn read(content_type: &str, body: &[u8]) -> Result<Params, Refusal> {
    let boundary = parameter(content_type, "boundary").filter(|boundary| {
        !boundary.is_empty() && boundary.len() <= LONGEST_BOUNDARY && boundary.bytes().all(|byte| byte >= b' ')
    });
    let boundary = boundary.ok_or_else(|| malformed("the boundary of the form is missing"))?;
    Params::of_pairs(Parts { delimiter: format!("\r\n--{boundary}").into_bytes(), rest: FormRest::Before(body) })
}

struct Parts<'a> {
    delimiter: Vec<u8>,
    rest: FormRest<'a>,
}

#[derive(Clone, Copy)]
enum FormRest<'a> {
    /// The first boundary is still to come.
    Before(&'a [u8]),
    /// What follows a boundary.
    Behind(&'a [u8]),
    /// Nothing more is wanted.
    Over,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(Cow<'a, str>, ParamValue), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = self.part();
            match part {
                Ok(None) => return None,
                Ok(Some(part)) => match field(part) {
                    Ok(None) => {}
                    Ok(Some(field)) => return Some(Ok(field)),
                    Err(why) => return Some(Err(self.end(why))),
                },
                Err(why) => return Some(Err(self.end(why))),
            }
        }
    }
}

impl<'a> Parts<'a> {
    fn end(&mut self, why: Refusal) -> Refusal {
        self.rest = FormRest::Over;
        why
    }

    /// The next part with its headers.
    fn part(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        let behind = match self.rest {
            FormRest::Over => return Ok(None),
            FormRest::Behind(behind) => behind,
            // the first boundary may be at the very beginning
            FormRest::Before(body) => match body.strip_prefix(&self.delimiter[2..]) {
                Some(behind) => behind,
                None => &body[find(body, &self.delimiter).ok_or_else(unfinished)? + self.delimiter.len()..],
            },
        };
        if behind.starts_with(b"--") {
            self.rest = FormRest::Over;
            return Ok(None);
        }
        let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        // the line break stays where it is: a part without headers begins with another
        let part = &behind[blanks..];
        if !part.starts_with(b"\r\n") {
            return Err(malformed("the form has a bad boundary"));
        }
        let end = find(&part[2..], &self.delimiter).map(|at| at + 2);
        // the part may be empty: then its line break is that of the next boundary
        let end = if part.starts_with(&self.delimiter) { 0 } else { end.ok_or_else(unfinished)? };
        self.rest = FormRest::Behind(&part[end + self.delimiter.len()..]);
        Ok(Some(&part[..end]))
    }
}

/// The name and value of a part that has a name.
fn field(part: &[u8]) -> Result<Option<(Cow<'_, str>, ParamValue)>, Refusal> {
    let Some(end) = find(&part[..part.len().min(MOST_HEADERS)], b"\r\n\r\n") else { return Ok(None) };
    let headers = str::from_utf8(&part[..end]).map_err(|_| malformed("a header of the form is not UTF-8"))?;
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let Some(name) = disposition.and_then(|disposition| parameter(disposition, "name")) else { return Ok(None) };
    if disposition.is_some_and(|disposition| parameter(disposition, "filename").is_some()) {
        return Ok(Some((name, ParamValue::File)));
    }
    let value = str::from_utf8(&part[end + 4..]).map_err(|_| malformed("a field of the form is not UTF-8"))?;
    Ok(Some((name, ParamValue::Text(value.to_owned()))))
}

/// A parameter of a header's value, with or without quotes.
fn parameter<'a>(value: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let mut rest = &value[value.find(';')?..];
    while let Some(next) = rest.strip_prefix(';') {
        let (name, behind) = next.split_once('=')?;
        let (text, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = behind.find(';').unwrap_or(behind.len());
                (Cow::Borrowed(behind[..end].trim()), &behind[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = behind.trim_start();
    }
    None
}

/// What stands before the closing quote, and what behind it.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = quoted.bytes().scan(false, |is_escaped, byte| {
        let closes = !*is_escaped && byte == b'"';
        *is_escaped = !*is_escaped && byte == b'\\';
        Some(closes)
    });
    let end = end.into_iter().position(|closes| closes)?;
    let (text, behind) = (&quoted[..end], &quoted[end + 1..]);
    // browsers escape a quote only; a path of Windows keeps its backslashes
    let text = if text.contains("\\\"") { Cow::Owned(text.replace("\\\"", "\"")) } else { Cow::Borrowed(text) };
    Some((text, behind))
}

/// Where `wanted` begins. Its first byte is nowhere else in it, so nothing is looked at more than twice.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn unfinished() -> Refusal {
    malformed("the form does not end")
}

fn malformed(words: &'static str) -> Refusal {
    Refusal::Malformed(words.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(content_type: &str, body: &str) -> Result<Vec<(String, ParamValue)>, u16> {
        let params = read(content_type, body.as_bytes()).map_err(|why| why.status())?;
        let known = ["a", "b", "l", "m", "f"].into_iter();
        Ok(known.filter_map(|name| Some((name.to_owned(), params.get(name)?.clone()))).collect())
    }

    fn text(text: &str) -> ParamValue {
        ParamValue::Text(text.to_owned())
    }

    #[test]
    fn fields_are_read_as_curl_and_browsers_write_them() {
        let body = "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--not\r\n--B  \r\n\
                    content-type: text/plain\r\ncontent-disposition: form-data; name=\"l[]\"\r\n\r\n1\r\n--B\r\n\
                    Content-Disposition: form-data; name=\"l[]\"\r\n\r\n\r\n--B\r\nX: y\r\n\r\nnobody\r\n--B\r\n\
                    Content-Disposition: form-data; name=f; filename=\"a;\\\"b\"\r\n\r\n\u{0}\r\n--B--\r\nepilogue";
        let list = ParamValue::List(vec![text("1"), text("")]);
        let expected =
            vec![("a".to_owned(), text("one\r\n--not")), ("l".to_owned(), list), ("f".to_owned(), ParamValue::File)];
        assert_eq!(shown("multipart/form-data; boundary=B", body), Ok(expected.clone()));
        assert_eq!(shown("multipart/form-data; charset=x; Boundary=\"B\"", body), Ok(expected));
        let first = "--B\r\nContent-Disposition: form-data; x=\"name=\\\"b\\\"\"; name=\"a\"\r\n\r\nv\r\n--B--";
        assert_eq!(shown("multipart/form-data; boundary=B", first), Ok(vec![("a".to_owned(), text("v"))]));
        assert_eq!(shown("multipart/form-data; boundary=B", "--B--\r\n"), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_off_or_malformed_is_refused() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--B--";
        assert!(shown("multipart/form-data; boundary=B", body).is_ok());
        for length in 0..body.len() - 2 {
            assert_eq!(shown("multipart/form-data; boundary=B", &body[..length]), Err(400), "{length}");
        }
        for content_type in
            ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\""]
        {
            assert_eq!(shown(content_type, body), Err(400), "{content_type}");
        }
        assert_eq!(
            read(
                "multipart/form-data; boundary=B",
                b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--B--"
            )
            .unwrap_err()
            .status(),
            400
        );
    }
}
