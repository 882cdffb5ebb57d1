//! Waiting for peers.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use socket2::{SockAddr, Socket, Type};

use super::endpoint::Endpoint;
use super::stream::{connect, Stream};
use crate::error::{Error, Result};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// Longest wait to find out whether a UNIX socket is alive.
const PROBE: Duration = Duration::from_millis(200);

/// A socket that peers connect to. The file of a UNIX socket goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    /// Keeps the file until the socket is closed.
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens on the first address of `endpoint`.
    ///
    /// A UNIX socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::Link`]: the address is in use, is not ours or is a file of another kind.
    pub fn bind(endpoint: &Endpoint) -> Result<Self> {
        let address = endpoint.resolve()?.remove(0);
        if let Endpoint::Unix(path) = endpoint {
            remove_stale(endpoint, path)?;
        }
        let refused = |e| Error::io(format!("listening on {endpoint}"), e);
        let socket = listen(&address).map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        let file = bound.as_pathname().map(SocketFile::new).transpose().map_err(refused)?;
        let endpoint = Endpoint::of_address(&bound).unwrap_or_else(|| endpoint.clone());
        Ok(Self { socket, endpoint, _file: file })
    }

    /// Where it listens: the address, and the real port where 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next peer that connects, if one does within `timeout`.
    ///
    /// # Errors
    /// [`Error::Link`] that says that nobody came, or what the system refused.
    pub fn accept(&self, timeout: Duration) -> Result<Stream> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.socket.accept() {
                Ok((socket, from)) => return Stream::new(socket, self.describe(&from)),
                Err(error) if is_passing(&error) => self.wait(deadline, timeout)?,
                Err(error) => return Err(Error::io(format!("accepting on {}", self.endpoint), error)),
            }
        }
    }

    fn describe(&self, from: &SockAddr) -> String {
        match Endpoint::of_address(from) {
            Some(peer) => peer.to_string(),
            None => format!("the peer on {}", self.endpoint),
        }
    }

    fn wait(&self, deadline: Instant, timeout: Duration) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let limit = timeout.as_secs_f64();
            return Err(Error::link(format!("nobody connected to {} within {limit} s", self.endpoint)));
        }
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Error::io(format!("waiting on {}", self.endpoint), error.into())),
        }
    }
}

/// Nobody is there yet, or one who came has gone again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}

fn listen(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    // A port whose last connections are still fading away is free.
    socket.set_reuse_address(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes the socket file of a listener that is gone; refuses a living one and other files.
fn remove_stale(endpoint: &Endpoint, path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(Error::link(format!("listening on {endpoint}: a file that is no socket is there")));
    }
    match connect(endpoint, PROBE) {
        Err(Error::Link { source: Some(e), .. }) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| Error::io(format!("removing the stale {endpoint}"), e))
        }
        _ => Err(Error::link(format!("listening on {endpoint}: another process listens there"))),
    }
}

/// The file of a bound UNIX socket, removed on drop unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        // Absolute, because the working directory may change.
        let path = std::path::absolute(path)?;
        Ok(Self { identity: identity(&path)?, path })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Nobody is left to tell; a file that stays is stale and replaced by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
