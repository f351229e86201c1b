//! The bytes below a socket. An enum, so that TLS can stand beside plain TCP one day; the outbox and the session
//! see only this.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::net::TcpStream;

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
            Self::Plain(stream) => stream.try_read(buffer),
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
