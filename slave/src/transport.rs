//! The bytes below a connection, from the moment it is accepted: HTTP, the handshake, the outbox and the session see only
//! this. An enum, so that TLS can stand beside plain TCP.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Read},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

thread_local! {
    /// What is read only to be thrown away.
    static DISCARD: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 << 10]);
}

/// A connected stream that is read and written without waiting.
#[derive(Debug)]
pub enum Transport {
    /// TCP without TLS.
    Plain(TcpStream),
}

impl Transport {
    /// A connection that was accepted.
    #[must_use]
    pub fn plain(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }

    /// Small writes leave at once: without it the second of two waits for an acknowledgement.
    pub fn set_nodelay(&self) {
        match self {
            Self::Plain(stream) => {
                // fails only if the client is gone, which the next read tells
                let _ = stream.set_nodelay(true);
            }
        }
    }

    /// The kernel holds at most about twice `bytes` for a client that does not read.
    ///
    /// # Errors
    ///
    /// The connection is gone already.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        match self {
            Self::Plain(stream) => SockRef::from(stream).set_send_buffer_size(bytes),
        }
    }

    /// Who is at the other end: a client, or the proxy before it. `None` if it is gone.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr().ok(),
        }
    }

    /// Is there something to read? `Ready` also at the end and after an error, which the read then tells.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Is there room to write?
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Read what is there. 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there; else the connection is gone.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let mut read = 0;
                let outcome = stream.try_io(Interest::READABLE, || {
                    read = (&*SockRef::from(stream)).read(buffer)?;
                    // less than there was room for is all that was there, and what comes later wakes us anew: to say so
                    // spares the call that would find nothing
                    if (1..buffer.len()).contains(&read) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                if read > 0 { Ok(read) } else { outcome.map(|()| 0) }
            }
        }
    }

    /// Read what is there into the room that `into` has left, at most `most` bytes. 0 is the end.
    ///
    /// # Errors
    ///
    /// As [`Transport::try_read`].
    pub fn try_read_buf(&self, into: &mut BytesMut, most: usize) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let (mut read, room) = (0, most.min(into.capacity() - into.len()));
                let outcome = stream.try_io(Interest::READABLE, || {
                    read = stream.try_read_buf(&mut into.limit(most))?;
                    // as in `try_read`
                    if (1..room).contains(&read) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                if read > 0 { Ok(read) } else { outcome.map(|()| 0) }
            }
        }
    }

    /// Does something wait in the kernel to be read, apart from the end?
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Plain(stream) => {
                matches!(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]), Ok(waiting) if waiting > 0)
            }
        }
    }

    /// Write what the kernel takes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it takes nothing; else the connection is gone.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
        }
    }

    /// Write what the kernel takes, past the runtime's records of the stream: for whoever knows that nothing was refused
    /// before, and asks [`Transport::try_write`] once something is.
    ///
    /// # Errors
    ///
    /// As [`Transport::try_write`].
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => SockRef::from(stream).send(bytes),
        }
    }

    /// Write what the kernel takes of several pieces, in one call.
    ///
    /// # Errors
    ///
    /// As [`Transport::try_write`].
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write_vectored(pieces),
        }
    }

    /// Say that nothing more will be written; reading goes on.
    pub fn finish_writing(&self) {
        match self {
            Self::Plain(stream) => {
                // fails only if the peer is gone, and then there is nobody to tell
                let _ = SockRef::from(stream).shutdown(Shutdown::Write);
            }
        }
    }

    /// The end of a connection whose client shall read what was written last: say that nothing more will be written, then read
    /// and discard until the client goes, too, for at most `most` bytes, or until it `is_over`, which wakes the task when it
    /// becomes so. Closing with unread input would reset the connection, and take what was written last with it.
    pub async fn close_lingering(&self, most: usize, mut is_over: impl FnMut(&mut Context<'_>) -> bool) {
        self.finish_writing();
        let mut left = most;
        poll_fn(|cx| {
            loop {
                if is_over(cx) {
                    return Poll::Ready(());
                }
                match self.poll_readable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                match DISCARD.with_borrow_mut(|buffer| self.try_read(buffer)) {
                    Ok(read) if read > 0 && read < left => left -= read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// From now on dropping the stream resets it, so that the kernel keeps no orphan with unsent bytes.
    pub fn reset_on_drop(&self) {
        match self {
            Self::Plain(stream) => {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    async fn pair() -> (Transport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Transport::plain(listener.accept().await.unwrap().0), client)
    }

    /// Wait for something to read, and read it.
    async fn read(transport: &Transport) -> Vec<u8> {
        let mut buffer = [0; 8];
        let readable = poll_fn(|cx| transport.poll_readable(cx));
        timeout(Duration::from_secs(5), readable).await.expect("something came").unwrap();
        let read = transport.try_read(&mut buffer).unwrap();
        buffer[..read].to_vec()
    }

    async fn is_readable(transport: &Transport) -> bool {
        poll_fn(|cx| Poll::Ready(transport.poll_readable(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_short_read_needs_no_other_and_misses_nothing() {
        let (transport, mut client) = pair().await;
        assert!(!transport.has_unread());
        client.write_all(b"one").await.unwrap();
        poll_fn(|cx| transport.poll_readable(cx)).await.unwrap();
        assert!(transport.has_unread());
        assert_eq!(read(&transport).await, b"one");
        assert!(!transport.has_unread());
        assert!(!is_readable(&transport).await, "all of it was read");
        client.write_all(b"and eight more").await.unwrap();
        assert_eq!(read(&transport).await, b"and eigh");
        assert!(is_readable(&transport).await, "the buffer was full: there may be more");
        assert_eq!(read(&transport).await, b"t more");
        client.write_all(b"end").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&transport).await, b"end");
        assert_eq!(read(&transport).await, b"", "the end shows though it came with the last bytes");
        assert!(!transport.has_unread(), "an end is nothing to read");
    }

    #[tokio::test]
    async fn a_buffer_is_filled_up_to_a_limit_and_a_short_read_needs_no_other() {
        let (transport, mut client) = pair().await;
        client.write_all(b"one, and two").await.unwrap();
        poll_fn(|cx| transport.poll_readable(cx)).await.unwrap();
        let mut buffer = BytesMut::with_capacity(64);
        assert_eq!(transport.try_read_buf(&mut buffer, 5).unwrap(), 5);
        assert!(is_readable(&transport).await, "the limit was reached: there may be more");
        assert_eq!(transport.try_read_buf(&mut buffer, 64).unwrap(), 7);
        assert_eq!(buffer, "one, and two");
        assert!(!is_readable(&transport).await, "all of it was read");
        let nothing = transport.try_read_buf(&mut buffer, 64).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        drop(client);
        poll_fn(|cx| transport.poll_readable(cx)).await.unwrap();
        assert_eq!(transport.try_read_buf(&mut buffer, 64).unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn a_lingering_close_discards_until_the_client_goes_or_has_sent_too_much_or_it_is_over() {
        let (transport, mut client) = pair().await;
        transport.try_write(b"last").unwrap_or_default();
        client.write_all(b"not read by anybody").await.unwrap();
        let closing = transport.close_lingering(1_000, |_| false);
        let reading = async {
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            drop(client);
            said
        };
        let (said, ()) = timeout(Duration::from_secs(5), async { tokio::join!(reading, closing) }).await.unwrap();
        assert!(said.is_empty() || said == b"last", "an orderly end");

        let (transport, mut client) = pair().await;
        client.write_all(&[0; 1_000]).await.unwrap();
        let closing = transport.close_lingering(1_000, |_| false);
        timeout(Duration::from_secs(5), closing).await.expect("it has sent too much");

        let (transport, _client) = pair().await;
        let mut looks = 0;
        let closing = transport.close_lingering(1_000, |cx| {
            looks += 1;
            cx.waker().wake_by_ref();
            looks == 2
        });
        timeout(Duration::from_secs(5), closing).await.expect("it is over");
    }
}
