//! The bytes below a socket. An enum, so that TLS can stand beside plain TCP one day; the outbox and the session
//! see only this.

use std::{
    io::{self, ErrorKind, IoSlice, Read},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// A connected stream that is read and written without waiting.
#[derive(Debug)]
pub enum Transport {
    /// TCP without TLS.
    Plain(TcpStream),
}

impl Transport {
    /// Plain TCP: small frames leave at once, and the kernel holds at most about twice `send_buffer` bytes for a
    /// client that does not read.
    ///
    /// # Errors
    ///
    /// The connection is gone already.
    pub fn plain(stream: TcpStream, send_buffer: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_send_buffer_size(send_buffer)?;
        Ok(Self::Plain(stream))
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

    use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

    use super::*;

    async fn pair() -> (Transport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Transport::plain(listener.accept().await.unwrap().0, 4_096).unwrap(), client)
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
}
