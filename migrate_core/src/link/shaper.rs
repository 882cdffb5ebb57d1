//! A shaped link that any number of channels share.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{eventfd, EventfdFlags};

use super::channel::Channel;
use super::relay::Relay;
use super::spec::LinkSpec;
use super::stream::Stream;
use crate::error::{Error, Result};

/// Asked of the sockets around the relay: hidden queues would fool the sender's clock.
const SOCKET_BUFFER: usize = 128 << 10;

/// One link, shaped as its [`LinkSpec`] says.
///
/// Its time, by which outages are scheduled, begins when it is made. Bytes go through a relay: a
/// thread that lives while there are channels. Dropping the shaper cuts the link: what is under way
/// is lost, and both ends of all channels are closed.
#[derive(Debug)]
pub struct Shaper {
    shared: Arc<Shared>,
}

/// What the shaper and its relay share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: LinkSpec,
    start: Instant,
    /// Readable when the inbox has changed.
    pub(super) wake: OwnedFd,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    channels: Vec<Channel>,
    cut: bool,
    running: bool,
    relay: Option<JoinHandle<()>>,
}

impl Shaper {
    /// A link without channels, whose time starts here.
    ///
    /// # Errors
    /// [`Error::Usage`] as [`LinkSpec::validate`]; [`Error::System`] without descriptors.
    pub fn new(spec: &LinkSpec) -> Result<Self> {
        spec.validate()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::System { what: "making the relay's event".into(), source: e.into() })?;
        let shared = Shared { spec: spec.clone(), start: Instant::now(), wake, inbox: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Puts the link before `far` and returns the near end: what is written there comes out of `far`
    /// shaped, and the reverse.
    ///
    /// Other handles on `far` must not be used any longer. Without shaping, `far` itself is returned.
    pub fn insert(&self, far: Stream) -> Result<Stream> {
        self.put_before(far, |channel| channel)
    }

    /// The same for a channel of few bytes that must not wait: they overtake what other channels have in
    /// the buffer before the bottleneck, as a sparse flow does where queues are fair (fq_codel, Linux's
    /// default). They take their share of the bandwidth all the same.
    pub fn insert_ahead(&self, far: Stream) -> Result<Stream> {
        self.put_before(far, Channel::ahead)
    }

    fn put_before(&self, far: Stream, kind: impl FnOnce(Channel) -> Channel) -> Result<Stream> {
        if !self.shared.spec.is_shaped() {
            return Ok(far);
        }
        let reset = Arc::new(AtomicBool::new(false));
        let (near, end) = Stream::before(&far, reset.clone())?;
        for stream in [&near, &end, &far] {
            stream.shrink_buffers(SOCKET_BUFFER)?;
        }
        end.set_nonblocking()?;
        far.set_nonblocking()?;
        self.add(kind(Channel::new([end, far], reset, &self.shared.spec)))?;
        Ok(near)
    }

    fn add(&self, channel: Channel) -> Result<()> {
        let mut inbox = self.shared.inbox();
        inbox.channels.push(channel);
        if inbox.running {
            self.shared.wake();
            return Ok(());
        }
        let relay = Relay::new(self.shared.clone());
        let thread = thread::Builder::new().name("link-relay".into()).spawn(move || relay.run());
        let thread = thread.map_err(|e| Error::System { what: "starting the relay".into(), source: e });
        inbox.relay = Some(thread.inspect_err(|_| inbox.channels.clear())?);
        inbox.running = true;
        Ok(())
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.cut = true;
        let relay = inbox.relay.take();
        drop(inbox);
        self.shared.wake();
        // The relay never blocks but in its poll, so this is short; it does not panic.
        let _ = relay.map(JoinHandle::join);
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when the counter is full, which is awake enough.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Seconds since the link's start.
    pub(super) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Moves channels that were inserted to the relay's; false when the relay has to end.
    pub(super) fn admit(&self, channels: &mut Vec<Channel>) -> bool {
        let mut inbox = self.inbox();
        channels.append(&mut inbox.channels);
        inbox.running = !inbox.cut && !channels.is_empty();
        inbox.running
    }

    /// For a relay that cannot go on: closes what was inserted meanwhile.
    pub(super) fn give_up(&self) {
        let mut inbox = self.inbox();
        inbox.channels.clear();
        inbox.running = false;
    }
}
