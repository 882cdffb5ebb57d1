//! A connected byte stream: one channel of a link, or a whole one.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::endpoint::Endpoint;
use super::spec::Transport;
use crate::error::{Error, Result};

/// A TCP stream (without Nagle's delay) or a UNIX stream, bare: a read is a read, a write a write.
///
/// Also readable and writable through a shared reference, and by its descriptor. Over a shaped link
/// the descriptor alone shows a reset as an end of file, or as a broken pipe to writers; `Read` tells
/// them apart.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    peer: Arc<str>,
    /// Set by the relay of a shaped link before it closes, where the far end was reset.
    reset: Option<Arc<AtomicBool>>,
}

/// Connects to `endpoint`, trying all its addresses for `timeout` in all.
///
/// # Errors
/// [`Error::Link`] that says whether the peer refused, was silent, or has no such address.
pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Stream> {
    let deadline = Instant::now() + timeout;
    let mut failure = None;
    for address in endpoint.resolve()? {
        match dial(&address, deadline) {
            Ok(socket) => return Stream::new(socket, endpoint.to_string()),
            Err(error) => failure = Some(error),
        }
    }
    let error = failure.unwrap_or_else(|| ErrorKind::NotFound.into());
    Err(refusal(endpoint, timeout, error))
}

fn dial(address: &SockAddr, deadline: Instant) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    let left = || deadline.saturating_duration_since(Instant::now());
    if address.is_unix() {
        dial_unix(&socket, address, left)?;
    } else {
        // The least that the call takes: a spent time limit is answered by the system's own error.
        socket.connect_timeout(address, left().max(Duration::from_millis(1)))?;
    }
    Ok(socket)
}

/// A UNIX socket connects at once, or its listener's queue is full: there is nothing to wait on.
fn dial_unix(socket: &Socket, address: &SockAddr, left: impl Fn() -> Duration) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    loop {
        match socket.connect(address) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !left().is_zero() => {
                sleep(Duration::from_millis(1).min(left()));
            }
            done => return done.and_then(|()| socket.set_nonblocking(false)),
        }
    }
}

fn refusal(endpoint: &Endpoint, timeout: Duration, source: io::Error) -> Error {
    let reason = match source.kind() {
        ErrorKind::ConnectionRefused => format!("{endpoint} refused: nothing listens there"),
        ErrorKind::NotFound => format!("{endpoint}: there is no such socket"),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("{endpoint} did not answer within {} s", timeout.as_secs_f64())
        }
        _ => format!("connecting to {endpoint}: {source}"),
    };
    Error::Link { reason, source: Some(source) }
}

/// Two connected streams in this process: over loopback, or a socket pair.
///
/// # Errors
/// [`Error::Link`] where the system has no descriptors or no loopback.
pub fn pair(transport: Transport) -> Result<(Stream, Stream)> {
    let sockets = match transport {
        Transport::Tcp => loopback(),
        Transport::Unix => Socket::pair(Domain::UNIX, Type::STREAM, None),
    };
    let (one, other) = sockets.map_err(|e| Error::io("connecting two sockets of this process", e))?;
    Ok((Stream::new(one, "this process".into())?, Stream::new(other, "this process".into())?))
}

fn loopback() -> io::Result<(Socket, Socket)> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(16)?;
    let one = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    one.connect(&listener.local_addr()?)?;
    let ours = one.local_addr()?.as_socket();
    loop {
        // Any process may connect to the port while it is open.
        let (other, from) = listener.accept()?;
        if from.as_socket() == ours {
            return Ok((one, other));
        }
    }
}

impl Stream {
    /// Wraps a connected socket; `peer` describes the other end in messages.
    pub(super) fn new(socket: Socket, peer: String) -> Result<Self> {
        let ip = matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6));
        let set = if ip { socket.set_tcp_nodelay(true) } else { Ok(()) };
        set.map_err(|e| Error::io(format!("setting up the connection with {peer}"), e))?;
        Ok(Self { socket, peer: peer.into(), reset: None })
    }

    /// The near end of a channel to `far`, and the relay's end of it, which sets `reset`.
    pub(super) fn before(far: &Self, reset: Arc<AtomicBool>) -> Result<(Self, Self)> {
        let pair = Socket::pair(Domain::UNIX, Type::STREAM, None);
        let (near, end) = pair.map_err(|e| far.explain("setting up a shaped channel", e))?;
        let near = Self { socket: near, peer: far.peer.clone(), reset: Some(reset) };
        Ok((near, Self::new(end, "the sender".into())?))
    }

    /// Keeps what the system may queue to `bytes` in each direction (it doubles what it is asked).
    pub(super) fn shrink_buffers(&self, bytes: usize) -> Result<()> {
        let set = self.socket.set_send_buffer_size(bytes);
        let set = set.and_then(|()| self.socket.set_recv_buffer_size(bytes));
        set.map_err(|e| self.explain("setting the buffer sizes", e))
    }

    pub(super) fn set_nonblocking(&self) -> Result<()> {
        self.socket.set_nonblocking(true).map_err(|e| self.explain("setting up a shaped channel", e))
    }

    /// Lets the close of a TCP stream be a reset.
    pub(super) fn reset_on_close(&self) {
        // Failing that, the peer sees an end: the best that is left.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// The other end, for messages: `tcp:10.0.0.1:4444`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Another handle on the same connection; time limits are shared.
    pub fn try_clone(&self) -> Result<Self> {
        let socket = self.socket.try_clone().map_err(|e| self.explain("copying the handle", e))?;
        Ok(Self { socket, peer: self.peer.clone(), reset: self.reset.clone() })
    }

    /// Ends one direction or both, for all handles; what was written still arrives.
    ///
    /// A connection that has ended already is no error.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        match self.socket.shutdown(how) {
            Err(error) if error.kind() != ErrorKind::NotConnected => {
                Err(self.explain("ending the connection", error))
            }
            _ => Ok(()),
        }
    }

    /// Ends both directions for all handles, and resets a TCP connection once the last of them is gone.
    ///
    /// A peer that fills a window which nobody opens again would else wait in its write: a connection that was ended
    /// politely answers nothing but a write that fits.
    pub fn abort(&self) -> Result<()> {
        // The one kind of socket that cannot linger, a UNIX one, fails its peer's writes at once.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.shutdown(Shutdown::Both)
    }

    /// Most time that one read waits for a first byte; `None` waits for ever, zero is refused.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> Result<()> {
        let set = self.checked(limit).and_then(|()| self.socket.set_read_timeout(limit));
        set.map_err(|e| self.explain("setting the read timeout", e))
    }

    /// Most time that one write waits for room; `None` waits for ever, zero is refused.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> Result<()> {
        let set = self.checked(limit).and_then(|()| self.socket.set_write_timeout(limit));
        set.map_err(|e| self.explain("setting the write timeout", e))
    }

    /// To the system a limit of zero means none.
    fn checked(&self, limit: Option<Duration>) -> io::Result<()> {
        match limit {
            Some(Duration::ZERO) => Err(io::Error::new(ErrorKind::InvalidInput, "zero is no time limit")),
            _ => Ok(()),
        }
    }

    /// Reads `bytes` full of `what` ("the acknowledgement").
    ///
    /// # Errors
    /// [`Error::Link`] that names `what` and the peer, for silence, an early end and a reset alike.
    pub fn receive(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        self.read_exact(bytes).map_err(|e| self.explain(&format!("waiting for {what}"), e))
    }

    /// Writes all of `bytes`, which are `what` ("the pages of round 3").
    ///
    /// # Errors
    /// As [`Stream::receive`].
    pub fn send(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        self.write_all(bytes).map_err(|e| self.explain(&format!("sending {what}"), e))
    }

    /// The error for people that `error`, met while `doing` something, stands for.
    pub fn explain(&self, doing: &str, error: io::Error) -> Error {
        let peer = &self.peer;
        let reason = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{peer} stalled: timed out {doing}"),
            ErrorKind::UnexpectedEof => format!("{peer} closed the connection, {doing}"),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                format!("{peer} broke the connection off, {doing}")
            }
            _ => format!("{peer}: {doing}: {error}"),
        };
        Error::Link { reason, source: Some(error) }
    }

    /// A reset that the relay passed on looks like an end of file to the socket.
    fn tell_reset(&self, wanted: bool, got: io::Result<usize>) -> io::Result<usize> {
        match (&got, &self.reset) {
            (Ok(0), Some(reset)) if wanted && reset.load(Ordering::Acquire) => {
                Err(ErrorKind::ConnectionReset.into())
            }
            _ => got,
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let got = (&self.socket).read(bytes);
        self.tell_reset(!bytes.is_empty(), got)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let got = (&self.socket).read_vectored(parts);
        self.tell_reset(parts.iter().any(|part| !part.is_empty()), got)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.socket).write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(parts)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
