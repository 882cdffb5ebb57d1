//! Bare streams: connecting, listening, and what goes wrong.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{connect, pair, Endpoint, Listener, Transport};
use super::{pattern, receive_all, send_in_background, PATIENCE};
use crate::error::Error;

const SHORT: Duration = Duration::from_millis(20);

fn any_port() -> Endpoint {
    "127.0.0.1:0".parse().unwrap()
}

/// A path for a socket of this test, removed with the guard.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchover-link-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.0.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn bytes_cross_a_connection_of_each_kind() {
    let place = Place::new("cross");
    for endpoint in [any_port(), place.endpoint()] {
        let listener = Listener::bind(&endpoint).unwrap();
        let out = connect(listener.endpoint(), PATIENCE).unwrap();
        let back = listener.accept(PATIENCE).unwrap();
        assert_eq!(out.peer(), listener.endpoint().to_string());
        assert!(!back.peer().is_empty());
        let sent = pattern(300_000, 1);
        let sender = send_in_background(&out, sent.clone(), 7001);
        assert!(receive_all(&back) == sent);
        sender.join().unwrap();
    }
}

#[test]
fn a_pair_is_connected_both_ways() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let (mut one, mut other) = pair(transport).unwrap();
        let mut answer = [0; 4];
        one.send(b"ping", "a question").unwrap();
        other.receive(&mut answer, "a question").unwrap();
        assert_eq!(&answer, b"ping");
        other.send(b"pong", "an answer").unwrap();
        one.receive(&mut answer, "an answer").unwrap();
        assert_eq!(&answer, b"pong");
    }
}

#[test]
fn a_refused_connection_names_the_endpoint() {
    let listener = Listener::bind(&any_port()).unwrap();
    let endpoint = listener.endpoint().clone();
    drop(listener);
    let error = connect(&endpoint, PATIENCE).unwrap_err().to_string();
    assert_eq!(error, format!("link: {endpoint} refused: nothing listens there"));
    let nowhere = Place::new("nowhere").endpoint();
    let error = connect(&nowhere, PATIENCE).unwrap_err().to_string();
    assert_eq!(error, format!("link: {nowhere}: there is no such socket"));
}

#[test]
fn a_listener_that_does_not_answer_is_given_up() {
    let place = Place::new("full");
    let _listener = Listener::bind(&place.endpoint()).unwrap();
    // Nobody accepts: the queue fills up.
    let mut held = Vec::new();
    let error = loop {
        match connect(&place.endpoint(), SHORT) {
            Ok(stream) => held.push(stream),
            Err(error) => break error.to_string(),
        }
        assert!(held.len() < 10_000);
    };
    assert!(error.contains("did not answer within 0.02 s"), "{error}");
}

#[test]
fn an_accept_that_nobody_answers_says_so() {
    let listener = Listener::bind(&any_port()).unwrap();
    let error = listener.accept(SHORT).unwrap_err();
    assert!(matches!(error, Error::Link { .. }));
    assert!(error.to_string().contains(&format!("nobody connected to {}", listener.endpoint())), "{error}");
}

#[test]
fn a_stale_socket_is_replaced_and_the_file_removed() {
    let place = Place::new("stale");
    drop(UnixListener::bind(&place.0).unwrap());
    assert!(place.0.exists());
    let listener = Listener::bind(&place.endpoint()).unwrap();
    connect(listener.endpoint(), PATIENCE).unwrap();
    drop(listener);
    assert!(!place.0.exists());
}

#[test]
fn a_live_socket_and_other_files_are_refused_and_kept() {
    let place = Place::new("live");
    let _listener = Listener::bind(&place.endpoint()).unwrap();
    let error = Listener::bind(&place.endpoint()).unwrap_err().to_string();
    assert!(error.contains("another process listens there"), "{error}");
    connect(&place.endpoint(), PATIENCE).unwrap();
    let plain = Place::new("plain");
    fs::write(&plain.0, "data").unwrap();
    let error = Listener::bind(&plain.endpoint()).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(fs::read(&plain.0).unwrap(), b"data");
}

#[test]
fn a_file_that_took_the_place_of_ours_stays() {
    let place = Place::new("replaced");
    let listener = Listener::bind(&place.endpoint()).unwrap();
    fs::remove_file(&place.0).unwrap();
    let _other = UnixListener::bind(&place.0).unwrap();
    drop(listener);
    assert!(place.0.exists());
}

#[test]
fn silence_is_an_error_that_says_what_was_awaited() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let (mut one, _other) = pair(transport).unwrap();
        one.set_read_timeout(Some(SHORT)).unwrap();
        let error = one.receive(&mut [0; 8], "the acknowledgement").unwrap_err();
        assert!(matches!(error, Error::Link { source: Some(_), .. }));
        let text = error.to_string();
        assert_eq!(text, "link: this process stalled: timed out waiting for the acknowledgement");
    }
}

#[test]
fn a_reader_that_does_not_read_times_the_writer_out() {
    let (mut one, _other) = pair(Transport::Tcp).unwrap();
    one.set_write_timeout(Some(SHORT)).unwrap();
    let error = one.send(&vec![0; 64 << 20], "the pages of round 0").unwrap_err().to_string();
    assert!(error.contains("timed out sending the pages of round 0"), "{error}");
}

#[test]
fn an_early_end_is_told_from_silence() {
    let (mut one, mut other) = pair(Transport::Unix).unwrap();
    other.send(b"abc", "half a header").unwrap();
    drop(other);
    let error = one.receive(&mut [0; 8], "the header").unwrap_err().to_string();
    assert!(error.contains("closed the connection, waiting for the header"), "{error}");
    assert_eq!(one.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_time_limit_of_zero_is_refused() {
    let (one, _other) = pair(Transport::Unix).unwrap();
    assert!(one.set_read_timeout(Some(Duration::ZERO)).is_err());
    assert!(one.set_write_timeout(Some(Duration::ZERO)).is_err());
    one.set_read_timeout(None).unwrap();
}

#[test]
fn an_abort_frees_a_writer_whose_window_is_closed() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let (mut near, mut far) = pair(transport).unwrap();
        let writer = thread::spawn(move || while near.write_all(&[7; 1 << 16]).is_ok() {});
        // Until nothing more fits.
        far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        far.read_exact(&mut [0; 1 << 16]).unwrap();
        thread::sleep(Duration::from_millis(50));
        far.abort().unwrap();
        // Emptied, it would have nothing left to be reset for.
        while matches!(far.read(&mut [0; 1 << 16]), Ok(1..)) {}
        drop(far);
        let began = Instant::now();
        while !writer.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(10), "{transport:?}: the writer waits for ever");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
