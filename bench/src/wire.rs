//! The little of HTTP and WebSocket that a load generator and a bare server need. Nothing of it is fit for strangers.

/// The length of the head of an HTTP message, with the blank line, once it is there.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The length of the body, as the head says.
pub fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let Some(at) = head.windows(NAME.len()).position(|part| part.eq_ignore_ascii_case(NAME)) else { return 0 };
    head[at + NAME.len()..]
        .iter()
        .skip_while(|&&byte| byte == b' ')
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

/// An HTTP reply that is complete.
pub struct HttpReply<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes that it took.
    pub length: usize,
}

/// The reply at the start of `bytes`, once all of it is there.
pub fn reply(bytes: &[u8]) -> Option<HttpReply<'_>> {
    let head = head_end(bytes)?;
    let length = head + content_length(&bytes[..head]);
    let body = bytes.get(head..length)?;
    let status = bytes.get(9..12)?.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0')));
    Some(HttpReply { status, body, length })
}

/// A frame of a server.
pub struct ServerFrame<'a> {
    /// What it is.
    pub opcode: u8,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes that it took.
    pub length: usize,
}

/// The frame at the start of `bytes`, once all of it is there.
pub fn frame(bytes: &[u8]) -> Option<ServerFrame<'_>> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (head, size) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        size => (2, usize::from(size)),
    };
    // a client's frames are masked; only the baselines meet them, and they do not look inside
    let head = if second & 0x80 == 0 { head } else { head + 4 };
    let payload = bytes.get(head..head + size)?;
    Some(ServerFrame { opcode: first & 0x0f, payload, length: head + size })
}

/// A text frame as a server sends it.
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x81);
    push_length(&mut frame, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a client sends it; the mask is zero, which leaves the payload as it is.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    push_length(&mut frame, payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn push_length(frame: &mut Vec<u8>, length: usize, mask: u8) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..126), _) => frame.push(mask | length),
        (_, Ok(length)) => {
            frame.push(mask | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
