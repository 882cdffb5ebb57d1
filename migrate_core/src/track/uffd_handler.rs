//! The thread that lets writers through.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::span;
use super::uffd::Uffd;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, RamBlock};

/// A protected memory and the thread that answers its write faults. Dropping it lifts all protection,
/// lets waiting writers go on and ends the thread.
#[derive(Debug)]
pub(super) struct Handler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    uffd: Uffd,
    memory: Arc<GuestMemory>,
    /// Readable once the thread is to end.
    stop: OwnedFd,
    /// Why the thread ended by itself.
    failure: Mutex<Option<String>>,
}

impl Handler {
    /// Protects all of `memory` and starts the thread.
    pub(super) fn start(uffd: Uffd, memory: &Arc<GuestMemory>) -> Result<Self> {
        let (memory, stop) = (Arc::clone(memory), event()?);
        let shared = Arc::new(Shared { uffd, memory, stop, failure: Mutex::default() });
        let mut handler = Self { shared: Arc::clone(&shared), thread: None };
        let builder = std::thread::Builder::new().name("uffd-sync".into());
        let served = Arc::clone(&shared);
        let thread = builder.spawn(move || served.serve());
        handler.thread =
            Some(thread.map_err(|source| Error::System { what: "starting a thread".into(), source })?);
        // After the thread is there: a page that is protected must find somebody to free it.
        shared.memory.blocks().iter().try_for_each(|block| {
            shared.uffd.register(block)?;
            shared.uffd.protect(block, &(0..block.pages()), true)
        })?;
        Ok(handler)
    }

    /// The descriptor.
    pub(super) fn uffd(&self) -> &Uffd {
        &self.shared.uffd
    }

    /// An error if the thread could not go on: protection was lifted then, and writes were not seen.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => {
                Err(Error::System { what: "tracking writes".into(), source: io::Error::other(why.clone()) })
            }
        }
    }

    #[cfg(test)]
    pub(super) fn fail_for_test(&self) {
        self.shared.give_up("no more write faults");
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // Unregistering wakes writers that wait; a block that was never registered refuses, which is all
        // the same. The thread lives until then, so that no fault goes unanswered.
        self.shared.release();
        signal(&self.shared.stop);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut faults = Vec::new();
        loop {
            let served = self.wait().and_then(|go_on| {
                faults.clear();
                self.uffd.read_faults(&mut faults)?;
                faults.iter().try_for_each(|address| self.let_through(*address))?;
                Ok(go_on)
            });
            match served {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.give_up(&error.to_string()),
            }
        }
    }

    /// Waits for a fault; false if the thread is to end.
    fn wait(&self) -> Result<bool> {
        let poll = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [poll(self.uffd.as_fd().as_raw_fd()), poll(self.stop.as_raw_fd())];
        // SAFETY: the array outlives the call, and its length is given.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        match io::Error::last_os_error() {
            e if ready < 0 && e.kind() != io::ErrorKind::Interrupted => {
                Err(Error::System { what: "waiting for write faults".into(), source: e })
            }
            _ => Ok(ready < 0 || fds[1].revents == 0),
        }
    }

    fn let_through(&self, address: u64) -> Result<()> {
        let holds = |block: &&RamBlock| span::addresses(block, &(0..block.pages())).contains(&address);
        let Some(block) = self.memory.blocks().iter().find(holds) else { return Ok(()) };
        let page = span::pages(block, &(address..address)).start;
        match self.uffd.protect(block, &span::whole(block, page..page + 1), false) {
            // The block was unregistered meanwhile, which woke the writer.
            Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn give_up(&self, why: &str) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        self.release();
    }

    fn release(&self) {
        for block in self.memory.blocks() {
            let _ = self.uffd.unregister(block);
        }
    }
}

fn event() -> Result<OwnedFd> {
    // SAFETY: plain call; the descriptor that it returns is nobody else's.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
        raw if raw < 0 => Err(Error::last_os("eventfd")),
        // SAFETY: as above.
        raw => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
    }
}

fn signal(event: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the kernel reads eight bytes of a live array. An eventfd at zero always takes a one.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}
