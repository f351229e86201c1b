//! One request as it arrives: its head, then its body. Each is bounded in bytes and time before anybody waits for it.

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;
use wellhead_proto::{dialect::contract::ApiReply, http_api::text, refusal::Refusal};

use super::{
    budget::UsedUp,
    chunks::{BadChunks, ChunkDecoder},
    client_stream::{Broken, ClientStream, READ, Waits},
    head::{Framing, HeadScanner, RequestHead},
    metrics::Ended,
    reply::go_on,
};

/// How much more of a large body is read at once, in bytes.
const READ_BODY: usize = 64 << 10;

/// What of the input a request has used.
pub(super) enum Used {
    /// So many bytes behind its head.
    Bytes(usize),
    /// All; these came behind it.
    AllBut(BytesMut),
    /// Part of its body has not been read, or is not worth reading.
    NotYetAll,
}

/// What a request has used whose body nobody wants: all that it is, if it is here anyway.
pub(super) fn unread(request: &RequestHead<'_>, behind: &[u8]) -> Used {
    match request.framing {
        Framing::Length(length) if length <= behind.len() as u64 && !request.expects_continue => {
            Used::Bytes(length as usize)
        }
        _ => Used::NotYetAll,
    }
}

/// Why there is no head.
pub(super) enum Incomplete {
    /// The client said nothing of it.
    Silent,
    /// It cannot be answered.
    Broken(Ended),
    /// It is answered with this.
    Refused(ApiReply, Option<Ended>),
}

/// Why there is no body.
pub(super) enum NoBody {
    Refused(Refusal),
    BrokeOff,
    Gone,
    /// Another connection needs the room.
    Dismissed,
}

impl From<Broken> for NoBody {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Dismissed => Self::Dismissed,
            Broken::Late => Self::Refused(Refusal::TooSlow),
            Broken::NoMemory => Self::Refused(no_memory()),
        }
    }
}

impl From<UsedUp> for NoBody {
    fn from(used_up: UsedUp) -> Self {
        Broken::from(used_up).into()
    }
}

fn no_memory() -> Refusal {
    Refusal::unavailable("too many unfinished requests (limits.http_memory)")
}

impl ClientStream {
    /// The length of the next head, once all of it is in `input`; nothing if the client has gone without one.
    pub(super) async fn read_head(
        &mut self,
        input: &mut BytesMut,
        is_first: bool,
    ) -> Result<Option<usize>, Incomplete> {
        let mut scanner = HeadScanner::default();
        // the first head has had its time since the connection was accepted
        let mut is_begun = is_first;
        loop {
            if scanner.is_new() {
                // blank lines may go before a request (RFC 9112 §2.2)
                let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                input.advance(blank);
            }
            if !input.is_empty() {
                match scanner.find_end(input) {
                    Ok(None) => {}
                    Ok(end) => return Ok(end),
                    Err(bad) => return Err(Incomplete::Refused(bad.reply(), None)),
                }
                if !is_begun {
                    is_begun = true;
                    self.set_deadline(Instant::now() + self.times.head);
                }
                if self.held.hold(input.capacity()).is_err() {
                    return Err(Incomplete::Refused(text(503, "too many unfinished requests"), Some(Ended::NoMemory)));
                }
            }
            match self.read(input, READ, Waits::ForRequest).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Broken::Late) if input.is_empty() && is_first => return Err(Incomplete::Broken(Ended::HeadLate)),
                Err(Broken::Late) if input.is_empty() => return Err(Incomplete::Broken(Ended::Idle)),
                Err(Broken::Late) => {
                    return Err(Incomplete::Refused(
                        text(408, "the request head took too long"),
                        Some(Ended::HeadLate),
                    ));
                }
                Err(Broken::Dismissed) if self.place.is_ending() => return Err(Incomplete::Silent),
                Err(Broken::Dismissed) => return Err(Incomplete::Broken(Ended::Crowded)),
                Err(Broken::Gone | Broken::NoMemory) => return Err(Incomplete::Silent),
            }
        }
    }

    /// The body of `request`, of which `behind` has come with its head, and what that has used.
    pub(super) async fn read_body(
        &mut self,
        request: &RequestHead<'_>,
        behind: &[u8],
        limit: usize,
    ) -> Result<(Bytes, Used), NoBody> {
        let too_large = || NoBody::Refused(Refusal::TooLarge { what: "a request body", limit: limit as u64 });
        match request.framing {
            Framing::Length(0) => Ok((Bytes::new(), Used::Bytes(0))),
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or_else(too_large)?;
                if let Some(body) = behind.get(..length) {
                    return Ok((Bytes::copy_from_slice(body), Used::Bytes(length)));
                }
                let mut body = BytesMut::new();
                self.hold_body(&mut body, behind.len().max(READ).min(length))?;
                body.extend_from_slice(behind);
                self.begin_body(request).await?;
                while body.len() < length {
                    // as it grows, so that a length that was only declared takes no room
                    let left = length - body.len();
                    if body.capacity() == body.len() {
                        let more = left.min(body.len().max(READ_BODY));
                        self.hold_body(&mut body, more)?;
                    }
                    if self.read(&mut body, left, Waits::InExchange).await? == 0 {
                        return Err(NoBody::BrokeOff);
                    }
                }
                Ok((body.freeze(), Used::Bytes(behind.len())))
            }
            Framing::Chunked => {
                let (mut input, mut body) = (BytesMut::from(behind), BytesMut::new());
                let mut decoder = ChunkDecoder::default();
                let mut is_begun = false;
                loop {
                    match decoder.decode(&mut input, &mut body, limit) {
                        Ok(true) => return Ok((body.freeze(), Used::AllBut(input))),
                        Ok(false) => {}
                        Err(BadChunks::TooLarge) => return Err(too_large()),
                        Err(BadChunks::Malformed) => {
                            return Err(NoBody::Refused(Refusal::Malformed(
                                "the chunks of the body are malformed".into(),
                            )));
                        }
                    }
                    if !is_begun {
                        is_begun = true;
                        self.begin_body(request).await?;
                    }
                    self.held.hold(body.capacity() + READ)?;
                    if self.read(&mut input, READ, Waits::InExchange).await? == 0 {
                        return Err(NoBody::BrokeOff);
                    }
                }
            }
        }
    }

    /// From now on the body has its time; who waits to be asked for it is.
    async fn begin_body(&mut self, request: &RequestHead<'_>) -> Result<(), NoBody> {
        self.place.set_waiting(Some(Instant::now()));
        self.set_deadline(Instant::now() + self.times.body);
        if request.expects_continue {
            self.write(&go_on()).await?;
            self.set_deadline(Instant::now() + self.times.body);
        }
        Ok(())
    }

    /// Make room for `more` bytes of a body, if there is.
    fn hold_body(&mut self, body: &mut BytesMut, more: usize) -> Result<(), UsedUp> {
        self.held.hold(body.len() + more)?;
        body.reserve(more);
        Ok(())
    }
}
