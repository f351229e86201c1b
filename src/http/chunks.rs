//! A body in chunks (RFC 9112 §7.1), parsed strictly: what two parsers could take for two different bodies is refused.
//! Pure: no sockets, no clock.

use bytes::{Buf, BytesMut};

/// The longest line of a chunk: its size with extensions, or a trailer, in bytes.
const MAX_LINE: usize = 256;
/// What all trailers together may have, in bytes.
const MAX_TRAILERS: usize = 4 << 10;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadChunks {
    /// It is larger than it may be.
    TooLarge,
    /// It breaks HTTP's rules.
    Malformed,
}

/// Takes the chunks out of what arrives.
#[derive(Debug, Default)]
pub struct ChunkDecoder(ChunkState);

#[derive(Debug, Default)]
enum ChunkState {
    /// A line with a size comes next.
    #[default]
    Size,
    /// So many bytes of a chunk come next.
    Data(u64),
    /// The end of the line behind a chunk comes next.
    DataEnd,
    /// Trailers, of which there were so many bytes, or the last line.
    Trailer(usize),
}

impl ChunkDecoder {
    /// Move the bytes of chunks from `input` to the end of `body`, which may grow to `limit` bytes. `true`: the body is
    /// whole, and what is left of `input` lies behind it.
    ///
    /// # Errors
    ///
    /// The body is too large, or no sequence of chunks.
    pub fn decode(&mut self, input: &mut BytesMut, body: &mut BytesMut, limit: usize) -> Result<bool, BadChunks> {
        loop {
            match &mut self.0 {
                ChunkState::Size => {
                    let Some(line) = take_line(input)? else { return Ok(false) };
                    let size = size(&line).ok_or(BadChunks::Malformed)?;
                    if size > limit.saturating_sub(body.len()) as u64 {
                        return Err(BadChunks::TooLarge);
                    }
                    self.0 = if size == 0 { ChunkState::Trailer(0) } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    let here = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    body.extend_from_slice(&input[..here]);
                    input.advance(here);
                    *left -= here as u64;
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.0 = ChunkState::DataEnd;
                }
                ChunkState::DataEnd => match input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.0 = ChunkState::Size;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(BadChunks::Malformed),
                },
                ChunkState::Trailer(seen) => {
                    let Some(line) = take_line(input)? else { return Ok(false) };
                    if line.is_empty() {
                        return Ok(true);
                    }
                    // nobody here wants one
                    *seen += line.len();
                    if *seen > MAX_TRAILERS || !has_name(&line) {
                        return Err(BadChunks::Malformed);
                    }
                }
            }
        }
    }
}

/// The next line without its end, which is CR LF and nothing else, once it is there.
fn take_line(input: &mut BytesMut) -> Result<Option<BytesMut>, BadChunks> {
    match memchr::memchr2(b'\r', b'\n', input) {
        Some(end) if end <= MAX_LINE && input[end] == b'\r' => match input.get(end + 1) {
            Some(b'\n') => {
                let line = input.split_to(end);
                input.advance(2);
                Ok(Some(line))
            }
            Some(_) => Err(BadChunks::Malformed),
            None => Ok(None),
        },
        None if input.len() <= MAX_LINE => Ok(None),
        _ => Err(BadChunks::Malformed),
    }
}

/// The size that a line begins with. Extensions behind it are skipped if they have names.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    if !(1..=15).contains(&digits) {
        return None;
    }
    let (digits, extensions) = line.split_at(digits);
    let mut parts = extensions.split(|&byte| byte == b';');
    let is_named = |part: &[u8]| {
        let (name, value) = part.split_at(memchr::memchr(b'=', part).unwrap_or(part.len()));
        is_token(name) && (value.is_empty() || is_token(&value[1..]))
    };
    if !parts.next()?.is_empty() || !parts.all(is_named) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Is it a header, which a line that goes on with the one before and the next request are not?
fn has_name(line: &[u8]) -> bool {
    memchr::memchr(b':', line).is_some_and(|end| is_token(&line[..end]))
}

fn is_token(bytes: &[u8]) -> bool {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(in_token)
}

#[cfg(test)]
mod tests;
