//! A link between two programs that know nothing of it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::endpoint::Endpoint;
use super::listener::Listener;
use super::shaper::Shaper;
use super::spec::LinkSpec;
use super::stream::{connect, Stream};
use crate::error::{Error, Result};

/// How often a wait for a caller looks whether all is over.
const SLICE: Duration = Duration::from_millis(50);
/// How long whoever is called may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Carried in one piece.
const PIECE: usize = 256 << 10;

/// Sees what a [`Forwarder`] has carried.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// `bytes` of a connection have been handed over just now: what the caller said, if they went `there`, else what
    /// was answered. Connections are numbered in the order of their calls. It holds up what comes next.
    fn saw(&self, connection: usize, there: bool, bytes: &[u8]);
}

/// Listens, calls somebody else for each that calls, and carries what they say over one shaped link.
///
/// Dropping it ends all connections.
#[derive(Debug)]
pub struct Forwarder {
    endpoint: Endpoint,
    line: Arc<Line>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Line {
    to: Endpoint,
    shaper: Shaper,
    ended: AtomicBool,
    carried: AtomicU64,
    witness: Option<Arc<dyn Witness>>,
    open: Mutex<Vec<Stream>>,
    pumps: Mutex<Vec<JoinHandle<()>>>,
}

impl Forwarder {
    /// Listens at `listen` and calls `to`, over a link as `spec` says.
    ///
    /// # Errors
    /// [`Error::Usage`] for a link that cannot be; [`Error::Link`] as [`Listener::bind`].
    pub fn start(listen: &Endpoint, to: Endpoint, spec: &LinkSpec) -> Result<Self> {
        Self::watched(listen, to, spec, None)
    }

    /// The same; `witness` sees what has been carried.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn watched(
        listen: &Endpoint,
        to: Endpoint,
        spec: &LinkSpec,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self> {
        let listener = Listener::bind(listen)?;
        let line = Arc::new(Line {
            to,
            shaper: Shaper::new(spec)?,
            ended: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            witness,
            open: Mutex::default(),
            pumps: Mutex::default(),
        });
        let endpoint = listener.endpoint().clone();
        let shared = line.clone();
        let acceptor = spawn("link-accept", move || shared.accept(&listener))?;
        Ok(Self { endpoint, line, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Bytes carried from callers so far.
    pub fn carried(&self) -> u64 {
        self.line.carried.load(Ordering::Relaxed)
    }

    /// Breaks all connections off; new ones are taken.
    pub fn cut(&self) {
        self.line.cut();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.line.ended.store(true, Ordering::Relaxed);
        let _ = self.acceptor.take().map(JoinHandle::join);
        self.line.cut();
        let pumps: Vec<_> = lock(&self.line.pumps).drain(..).collect();
        for pump in pumps {
            let _ = pump.join();
        }
    }
}

impl Line {
    fn accept(self: &Arc<Self>, listener: &Listener) {
        let mut number = 0;
        while !self.ended.load(Ordering::Relaxed) {
            // Nobody came in this slice, or whoever was called is not there: the caller sees an end.
            let Ok(caller) = listener.accept(SLICE) else { continue };
            let _ = self.carry(caller, number);
            number += 1;
        }
    }

    fn carry(self: &Arc<Self>, caller: Stream, number: usize) -> Result<()> {
        let called = self.shaper.insert(connect(&self.to, PATIENCE)?)?;
        let ends = [caller.try_clone()?, called.try_clone()?];
        let (back_from, back_to) = (called.try_clone()?, caller.try_clone()?);
        let (there, back) = (self.clone(), self.clone());
        let first = spawn("link-there", move || there.pump(&caller, &called, number, true))?;
        let second = spawn("link-back", move || back.pump(&back_from, &back_to, number, false))?;
        lock(&self.pumps).extend([first, second]);
        lock(&self.open).extend(ends);
        Ok(())
    }

    /// Carries one direction to its end, and passes that on.
    fn pump(&self, mut from: &Stream, mut to: &Stream, number: usize, forth: bool) {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let Some(said) = piece.get(..length) else { break };
            if to.write_all(said).is_err() {
                // Nobody hears it any more: whoever speaks is to know.
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
            if forth {
                self.carried.fetch_add(length as u64, Ordering::Relaxed);
            }
            if let Some(witness) = &self.witness {
                witness.saw(number, forth, said);
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn cut(&self) {
        for end in lock(&self.open).drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|source| Error::System { what: "starting a link's thread".into(), source })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Endpoint {
        "127.0.0.1:0".parse().unwrap()
    }

    fn line(spec: &LinkSpec) -> (Listener, Forwarder, Stream, Stream) {
        let far = Listener::bind(&local()).unwrap();
        let forwarder = Forwarder::start(&local(), far.endpoint().clone(), spec).unwrap();
        let near = connect(forwarder.endpoint(), PATIENCE).unwrap();
        let there = far.accept(PATIENCE).unwrap();
        (far, forwarder, near, there)
    }

    #[test]
    fn carries_both_ways_and_passes_ends_on() {
        for bandwidth in [None, Some(1e8)] {
            let spec = LinkSpec { bandwidth, ..LinkSpec::default() };
            let (_far, forwarder, mut near, mut there) = line(&spec);
            near.send(b"there", "words").unwrap();
            there.send(b"back", "words").unwrap();
            let (mut a, mut b) = ([0; 5], [0; 4]);
            there.receive(&mut a, "words").unwrap();
            near.receive(&mut b, "words").unwrap();
            assert_eq!((&a, &b), (b"there", b"back"));
            // It is counted when it is out, which who reads it may know before.
            let began = std::time::Instant::now();
            while forwarder.carried() < 5 && began.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            assert_eq!(forwarder.carried(), 5);
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(there.read(&mut a).unwrap(), 0);
        }
    }

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<(usize, bool, Vec<u8>)>>);

    impl Witness for Notes {
        fn saw(&self, connection: usize, there: bool, bytes: &[u8]) {
            lock(&self.0).push((connection, there, bytes.to_vec()));
        }
    }

    #[test]
    fn a_witness_sees_what_both_sides_say() {
        let far = Listener::bind(&local()).unwrap();
        let notes = Arc::new(Notes::default());
        let spec = LinkSpec::default();
        let to = far.endpoint().clone();
        let forwarder = Forwarder::watched(&local(), to, &spec, Some(notes.clone())).unwrap();
        for words in [b"one", b"two"] {
            let mut near = connect(forwarder.endpoint(), PATIENCE).unwrap();
            let mut there = far.accept(PATIENCE).unwrap();
            near.send(words, "words").unwrap();
            there.receive(&mut [0; 3], "words").unwrap();
            there.send(b"yes", "words").unwrap();
            near.receive(&mut [0; 3], "words").unwrap();
        }
        drop(forwarder);
        let mut seen = lock(&notes.0).clone();
        seen.sort();
        let note = |number, there, words: &[u8]| (number, there, words.to_vec());
        let expected =
            [note(0, false, b"yes"), note(0, true, b"one"), note(1, false, b"yes"), note(1, true, b"two")];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_cut_is_felt_and_a_new_call_is_taken() {
        let (far, forwarder, mut near, _there) = line(&LinkSpec::default());
        forwarder.cut();
        assert_eq!(near.read(&mut [0; 1]).unwrap_or(0), 0);
        let mut again = connect(forwarder.endpoint(), PATIENCE).unwrap();
        let mut there = far.accept(PATIENCE).unwrap();
        again.send(b"x", "a word").unwrap();
        there.receive(&mut [0; 1], "a word").unwrap();
    }

    #[test]
    fn dropping_it_ends_all() {
        let (_far, forwarder, mut near, mut there) = line(&LinkSpec::default());
        drop(forwarder);
        assert_eq!(near.read(&mut [0; 1]).unwrap_or(0), 0);
        assert_eq!(there.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
