//! Vectored transfers between guest memory and a descriptor, without a copy of our own in between.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::memory::GuestMemory;
use crate::bitmap::Run;
use crate::error::{Error, Result};

/// Vectors given to the kernel at once; its own limit (UIO_MAXIOV) is 1024.
const MOST_VECTORS: usize = 1024;

/// Writes `head`, then the pages of `runs` straight from guest memory. Blocks until all is written.
pub fn write_pages(fd: BorrowedFd<'_>, head: &[u8], memory: &GuestMemory, runs: &[Run]) -> Result<()> {
    let mut vectors = vec![libc::iovec { iov_base: head.as_ptr() as *mut _, iov_len: head.len() }];
    vectors.extend(page_vectors(memory, runs));
    // SAFETY: writev only reads from the vectors, which point into `head` and the guest's mapping; both
    // outlive the call. A guest that writes meanwhile gives a torn page, which its hash reveals.
    transfer(&mut vectors, "sending pages", |v| unsafe {
        libc::writev(fd.as_raw_fd(), v.as_ptr(), v.len() as i32)
    })
}

/// Reads the pages of `runs` from `fd` straight into guest memory. Blocks until all is there.
pub fn read_pages(fd: BorrowedFd<'_>, memory: &GuestMemory, runs: &[Run]) -> Result<()> {
    let mut vectors: Vec<_> = page_vectors(memory, runs).collect();
    // SAFETY: readv writes into the guest's mapping only, whole pages of it, which hold plain bytes.
    transfer(&mut vectors, "receiving pages", |v| unsafe {
        libc::readv(fd.as_raw_fd(), v.as_ptr(), v.len() as i32)
    })
}

fn page_vectors<'a>(memory: &'a GuestMemory, runs: &'a [Run]) -> impl Iterator<Item = libc::iovec> + 'a {
    let spans = runs.iter().flat_map(|run| memory.spans(*run));
    spans.map(|(base, len)| libc::iovec { iov_base: base.cast(), iov_len: len })
}

fn transfer(vectors: &mut [libc::iovec], what: &str, call: impl Fn(&[libc::iovec]) -> isize) -> Result<()> {
    let mut next = 0;
    while next < vectors.len() {
        let end = vectors.len().min(next + MOST_VECTORS);
        match call(&vectors[next..end]) {
            0 => return Err(Error::link(format!("{what}: the peer closed the connection"))),
            n if n > 0 => next += consume(&mut vectors[next..end], n as usize),
            _ => match std::io::Error::last_os_error() {
                e if e.kind() == std::io::ErrorKind::Interrupted => {}
                e => return Err(Error::io(what, e)),
            },
        }
    }
    Ok(())
}

/// Takes `moved` bytes off the front; returns how many vectors are done with.
fn consume(vectors: &mut [libc::iovec], mut moved: usize) -> usize {
    for (done, vector) in vectors.iter_mut().enumerate() {
        if moved < vector.iov_len {
            vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(moved).cast();
            vector.iov_len -= moved;
            return done;
        }
        moved -= vector.iov_len;
    }
    vectors.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Layout, PAGE};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn scattered_runs_arrive_in_place_through_a_small_socket() {
        let (source, destination) = (
            GuestMemory::new(&Layout::single(8 << 20)).unwrap(),
            GuestMemory::new(&Layout::single(8 << 20)).unwrap(),
        );
        for page in 0..2048u64 {
            source.write(page * PAGE as u64, &page.to_le_bytes());
        }
        // More runs than one call takes, so that vectors are cut and continued.
        let runs: Vec<Run> =
            (0..1500).map(|i| Run { first: i, pages: 1 }).chain([Run { first: 1600, pages: 400 }]).collect();
        let (mut a, b) = UnixStream::pair().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| write_pages(b.as_fd(), b"head", &source, &runs).unwrap());
            let mut head = [0; 4];
            a.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"head");
            read_pages(a.as_fd(), &destination, &runs).unwrap();
        });
        for run in &runs {
            for page in run.range() {
                assert_eq!(source.hash_page(page), destination.hash_page(page), "page {page}");
            }
        }
    }

    #[test]
    fn a_closed_peer_is_an_error() {
        let memory = GuestMemory::new(&Layout::single(1 << 20)).unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        let error = read_pages(a.as_fd(), &memory, &[Run { first: 0, pages: 1 }]).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
    }
}
