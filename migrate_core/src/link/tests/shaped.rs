//! Streams behind a shaper.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{pair, LinkSpec, Outage, Shaper, Stream, Transport};
use super::{pattern, receive_all, send_in_background, PATIENCE};
use crate::error::Error;

const KINDS: [Transport; 2] = [Transport::Tcp, Transport::Unix];

/// A rough link, fast enough for tests: every part of the shaping is at work.
fn rough() -> LinkSpec {
    LinkSpec {
        bandwidth: Some(200e6),
        rtt: 2e-3,
        jitter: 1e-3,
        outages: vec![Outage { at: 0.005, duration: 0.01 }],
        seed: 5,
        ..LinkSpec::default()
    }
}

/// Only delayed: what is written is under way for `seconds`.
fn slow(seconds: f64) -> LinkSpec {
    LinkSpec { rtt: 2.0 * seconds, ..LinkSpec::default() }
}

/// A shaper with one channel: near end, far end.
fn channel(spec: &LinkSpec, transport: Transport) -> (Shaper, Stream, Stream) {
    let shaper = Shaper::new(spec).unwrap();
    let (far, peer) = pair(transport).unwrap();
    let near = shaper.insert(far).unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (shaper, near, peer)
}

fn read_error(mut stream: &Stream) -> ErrorKind {
    stream.read_to_end(&mut Vec::new()).unwrap_err().kind()
}

#[test]
fn all_bytes_arrive_in_order_both_ways_on_all_channels() {
    for (transport, channels) in [(Transport::Tcp, 1), (Transport::Unix, 1), (Transport::Tcp, 4)] {
        let shaper = Shaper::new(&rough()).unwrap();
        let ends: Vec<(Stream, Stream)> = (0..channels)
            .map(|_| pair(transport).unwrap())
            .map(|(far, peer)| (shaper.insert(far).unwrap(), peer))
            .collect();
        thread::scope(|scope| {
            for (seed, (near, peer)) in ends.iter().enumerate() {
                let sent = pattern(700_000, seed as u64);
                for (from, to) in [(near, peer), (peer, near)] {
                    let sent = sent.clone();
                    scope.spawn(move || {
                        let sender = send_in_background(from, sent.clone(), 30_011);
                        assert!(receive_all(to) == sent, "channel {seed} of {channels}");
                        sender.join().unwrap();
                    });
                }
            }
        });
    }
}

#[test]
fn tiny_writes_arrive_in_order() {
    let (_shaper, near, peer) = channel(&rough(), Transport::Tcp);
    let sent = pattern(5_000, 9);
    let sender = send_in_background(&near, sent.clone(), 1);
    assert!(receive_all(&peer) == sent);
    sender.join().unwrap();
}

#[test]
fn without_shaping_the_far_end_itself_is_returned() {
    let shaper = Shaper::new(&LinkSpec { channels: 4, ..LinkSpec::default() }).unwrap();
    let (far, _peer) = pair(Transport::Tcp).unwrap();
    let descriptor = far.as_raw_fd();
    assert_eq!(shaper.insert(far).unwrap().as_raw_fd(), descriptor);
}

#[test]
fn a_bad_spec_makes_no_shaper() {
    let spec = LinkSpec { bandwidth: Some(-1.0), ..LinkSpec::default() };
    assert!(matches!(Shaper::new(&spec), Err(Error::Usage(_))));
}

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    for transport in KINDS {
        let (_shaper, mut near, mut peer) = channel(&slow(0.01), transport);
        near.send(b"question", "the question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&peer), b"question");
        peer.send(b"answer", "the answer").unwrap();
        drop(peer);
        assert_eq!(receive_all(&near), b"answer");
    }
}

#[test]
fn a_reset_of_the_far_end_comes_after_its_last_words() {
    let (_shaper, mut near, mut peer) = channel(&slow(0.01), Transport::Tcp);
    near.send(b"unread", "what the peer will not read").unwrap();
    peer.send(b"last words", "an error text").unwrap();
    // Closed with unread bytes or reset outright: a reset either way.
    peer.reset_on_close();
    drop(peer);
    let mut words = [0; 10];
    near.receive(&mut words, "the error text").unwrap();
    assert_eq!(&words, b"last words");
    assert_eq!(read_error(&near), ErrorKind::ConnectionReset);
    let error = near.receive(&mut words, "the next round").unwrap_err().to_string();
    assert!(error.contains("broke the connection off, waiting for the next round"), "{error}");
}

#[test]
fn a_far_end_that_closes_stops_the_writer_and_its_last_words_arrive() {
    for transport in KINDS {
        let (_shaper, mut near, mut peer) = channel(&slow(0.005), transport);
        peer.send(b"no: wrong version", "an error text").unwrap();
        drop(peer);
        let piece = [7; 4096];
        let stopped = (0..1_000_000).find_map(|_| near.write(&piece).err());
        let kind = stopped.expect("the writer is stopped").kind();
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
        let mut words = [0; 17];
        near.receive(&mut words, "the error text").unwrap();
        assert_eq!(&words, b"no: wrong version");
        // An end or a reset, as the peer's close met bytes that it had not read or none.
        assert!(matches!(
            near.read(&mut words).map_err(|e| e.kind()),
            Ok(0) | Err(ErrorKind::ConnectionReset)
        ));
    }
}

#[test]
fn a_near_end_that_breaks_off_resets_the_far_end_after_what_it_sent() {
    let (_shaper, mut near, mut peer) = channel(&slow(0.01), Transport::Tcp);
    peer.send(b"unread", "what near will not read").unwrap();
    let readable = rustix::event::PollFlags::IN;
    let mut polled = [rustix::event::PollFd::new(&near, readable)];
    rustix::event::poll(&mut polled, None).unwrap();
    near.send(b"sent before", "some bytes").unwrap();
    drop(near);
    let mut bytes = [0; 11];
    peer.receive(&mut bytes, "some bytes").unwrap();
    assert_eq!(&bytes, b"sent before");
    assert_eq!(read_error(&peer), ErrorKind::ConnectionReset);
}

#[test]
fn dropping_the_shaper_cuts_the_link() {
    for transport in KINDS {
        let (shaper, mut near, mut peer) = channel(&slow(60.0), transport);
        near.send(b"never to arrive", "some bytes").unwrap();
        drop(shaper);
        assert_eq!(read_error(&near), ErrorKind::ConnectionReset);
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut bytes = Vec::new();
        match (transport, peer.read_to_end(&mut bytes)) {
            (Transport::Tcp, end) => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
            (Transport::Unix, _) => assert!(bytes.is_empty()),
        }
    }
}

#[test]
fn a_stalled_peer_times_the_reader_out() {
    let (_shaper, mut near, _peer) = channel(&slow(0.001), Transport::Tcp);
    near.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let error = near.receive(&mut [0], "the acknowledgement").unwrap_err().to_string();
    assert!(error.contains("timed out waiting for the acknowledgement"), "{error}");
}

/// The queue is bounded: a peer that reads nothing stops the sender, and loses nothing.
#[test]
fn back_pressure_reaches_the_sender() {
    let spec = LinkSpec { bandwidth: Some(500e6), ..LinkSpec::default() };
    let (_shaper, near, peer) = channel(&spec, Transport::Unix);
    near.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let piece = pattern(50_000, 3);
    let mut sent = Vec::new();
    loop {
        match (&near).write(&piece[..]) {
            Ok(count) => sent.extend_from_slice(&piece[..count]),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        // The window is 15 ms of bandwidth, and the sockets add a little.
        assert!(sent.len() < 12 << 20, "{} bytes are hidden in the link", sent.len());
    }
    near.shutdown(Shutdown::Write).unwrap();
    assert!(receive_all(&peer) == sent);
}

/// A channel that nobody reads must not hold up the others.
#[test]
fn a_stuck_channel_leaves_the_link_to_the_others() {
    let spec = LinkSpec { bandwidth: Some(100e6), ..LinkSpec::default() };
    let (shaper, stuck, _unread) = channel(&spec, Transport::Tcp);
    stuck.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!((&stuck).write_all(&vec![0; 32 << 20]).is_err());
    let (far, peer) = pair(Transport::Tcp).unwrap();
    let near = shaper.insert(far).unwrap();
    let sent = pattern(200_000, 4);
    let sender = send_in_background(&near, sent.clone(), 10_000);
    assert!(receive_all(&peer) == sent);
    sender.join().unwrap();
}

/// Lower bounds only: a busy machine makes a link slower, and nothing may make it faster.
#[test]
fn bandwidth_delay_and_outage_take_their_time() {
    let started = Instant::now();
    let outages = vec![Outage { at: 0.02, duration: 0.05 }];
    let spec = LinkSpec { bandwidth: Some(10e6), rtt: 0.02, outages, ..LinkSpec::default() };
    let (_shaper, near, peer) = channel(&spec, Transport::Tcp);
    let sender = send_in_background(&near, pattern(1_000_000, 1), 65_536);
    assert_eq!(receive_all(&peer).len(), 1_000_000);
    assert!(started.elapsed() >= Duration::from_millis(159), "{:?}", started.elapsed());
    sender.join().unwrap();
}

#[test]
fn a_channel_may_come_after_the_others_are_gone() {
    let (shaper, near, peer) = channel(&slow(0.001), Transport::Unix);
    drop((near, peer));
    for _ in 0..50 {
        let (far, peer) = pair(Transport::Unix).unwrap();
        let mut near = shaper.insert(far).unwrap();
        near.send(b"again", "a word").unwrap();
        drop(near);
        assert_eq!(receive_all(&peer), b"again");
    }
}

/// One shaped link behind another: a reset passes through both.
#[test]
fn shapers_can_be_chained() {
    let (_first, near, peer) = channel(&slow(0.005), Transport::Tcp);
    let second = Shaper::new(&slow(0.005)).unwrap();
    let mut near = second.insert(near).unwrap();
    near.send(b"through both", "some bytes").unwrap();
    let mut bytes = [0; 12];
    (&peer).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"through both");
    peer.reset_on_close();
    drop(peer);
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_error(&near), ErrorKind::ConnectionReset);
}
