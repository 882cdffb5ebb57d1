//! The return path: what a destination tells its source, on the socket of the main channel.
//!
//! A message is `be16 kind | be16 length | payload`; see [`Reply`] for the kinds. The bitmap of
//! [`Reply::Received`] follows its message and is not counted by the message's length.

use crate::error::{Error, Result};

/// Longest bitmap that is read: for a RAM block of 2 TiB in pages of 4 KiB.
const MOST_BITMAP: u64 = 64 << 20;
/// What follows a bitmap.
const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;

const SHUT: u16 = 1;
const PONG: u16 = 2;
const REQUEST_NAMED: u16 = 3;
const REQUEST: u16 = 4;
const RECEIVED: u16 = 5;
const RESUME_ACK: u16 = 6;
const SWITCHOVER_ACK: u16 = 7;

/// One message of the destination's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It will say no more: it has loaded everything (0), or failed.
    Shut {
        /// 0 for success.
        error: u32,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's value.
        value: u32,
    },
    /// Remote fault: it needs these bytes before all others.
    Request {
        /// The RAM block; `None` is the one named last.
        block: Option<String>,
        /// Offset in the block, in bytes.
        start: u64,
        /// Bytes, a multiple of the block's page size.
        length: u32,
    },
    /// Which pages of a block have arrived, said when a post-copy is taken up again.
    Received {
        /// The RAM block.
        block: String,
        /// A bit for each target page, bit 0 of byte 0 first.
        bitmap: Vec<u8>,
    },
    /// It is ready for the post-copy to go on.
    ResumeAck {
        /// Always 1.
        value: u32,
    },
    /// The source may switch over as far as the devices are concerned (QEMU 8.1 and later).
    SwitchoverAck,
}

impl Reply {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::Usage`]: the block's name is longer than 255 bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Shut { error } => message(SHUT, &error.to_be_bytes()),
            Self::Pong { value } => message(PONG, &value.to_be_bytes()),
            Self::Request { block: None, start, length } => message(REQUEST, &range(*start, *length)),
            Self::Request { block: Some(block), start, length } => {
                message(REQUEST_NAMED, &[range(*start, *length), named(block)?].concat())
            }
            Self::Received { block, bitmap } => {
                let size = (bitmap.len() as u64).to_be_bytes();
                let head = message(RECEIVED, &named(block)?);
                [&head[..], &size, bitmap, &BITMAP_END.to_be_bytes()].concat()
            }
            Self::ResumeAck { value } => message(RESUME_ACK, &value.to_be_bytes()),
            Self::SwitchoverAck => message(SWITCHOVER_ACK, &[]),
        })
    }
}

/// `payload` is never longer than 268 bytes.
fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

fn range(start: u64, length: u32) -> Vec<u8> {
    [&start.to_be_bytes()[..], &length.to_be_bytes()].concat()
}

fn named(block: &str) -> Result<Vec<u8>> {
    let length = u8::try_from(block.len());
    let length =
        length.map_err(|_| Error::usage(format!("a RAM block's name has at most 255 bytes: `{block}`")))?;
    Ok([&[length][..], block.as_bytes()].concat())
}

/// Reads a return path as its bytes come in.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// What has come and was not read.
    pending: Vec<u8>,
    /// Where `pending` begins.
    offset: u64,
}

impl ReplyReader {
    /// Takes in what came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message and the position of its first byte; `None` until it has come in.
    ///
    /// # Errors
    /// [`Error::Stream`]: an unknown kind, a wrong length, a name that is no text, a bitmap of more than 64 MiB or
    /// without its end.
    pub fn next_reply(&mut self) -> Result<Option<(u64, Reply)>> {
        let at = self.offset;
        let mut bytes = Bytes { rest: &self.pending, at };
        match read(&mut bytes) {
            Ok(reply) => {
                let used = (bytes.at - at) as usize;
                self.pending.drain(..used);
                self.offset += used as u64;
                Ok(Some((at, reply)))
            }
            Err(Stop::More) => Ok(None),
            Err(Stop::Bad(error)) => Err(error),
        }
    }

    /// Position of the first byte that belongs to no whole message.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// Why reading stopped.
enum Stop {
    /// The rest has not come in.
    More,
    Bad(Error),
}

/// A cursor over what is there.
struct Bytes<'a> {
    rest: &'a [u8],
    at: u64,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> std::result::Result<&'a [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Stop::More)?;
        self.rest = rest;
        self.at += count as u64;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> std::result::Result<[u8; N], Stop> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Stop::More)
    }

    fn bad(&self, reason: String) -> Stop {
        Stop::Bad(Error::stream(self.at, format!("return path: {reason}")))
    }

    fn name(&mut self) -> std::result::Result<String, Stop> {
        let [length] = self.number()?;
        let at = Self { rest: self.rest, at: self.at };
        let name = self.take(length.into())?;
        let text = std::str::from_utf8(name).map_err(|_| at.bad("a RAM block's name is no text".into()))?;
        Ok(text.to_owned())
    }
}

fn read(bytes: &mut Bytes<'_>) -> std::result::Result<Reply, Stop> {
    let start = Bytes { rest: bytes.rest, at: bytes.at };
    let kind = u16::from_be_bytes(bytes.number()?);
    let length = usize::from(u16::from_be_bytes(bytes.number()?));
    if !lengths(kind).is_some_and(|lengths| lengths.contains(&length)) {
        return Err(start.bad(format!("message of kind {kind} with {length} bytes; {}", expected(kind))));
    }
    let mut payload = Bytes { at: bytes.at, rest: bytes.take(length)? };
    let reply = read_payload(kind, &mut payload)?;
    if !payload.rest.is_empty() {
        let more = payload.rest.len();
        return Err(payload.bad(format!("{more} bytes too many in a message of kind {kind}")));
    }
    match reply {
        Reply::Received { block, .. } => Ok(Reply::Received { block, bitmap: read_bitmap(bytes)? }),
        reply => Ok(reply),
    }
}

/// The lengths that a payload of `kind` may have; none for a kind that there is not.
fn lengths(kind: u16) -> Option<std::ops::RangeInclusive<usize>> {
    match kind {
        SHUT | PONG | RESUME_ACK => Some(4..=4),
        REQUEST => Some(12..=12),
        REQUEST_NAMED => Some(13..=13 + 255),
        RECEIVED => Some(1..=1 + 255),
        SWITCHOVER_ACK => Some(0..=0),
        _ => None,
    }
}

fn expected(kind: u16) -> String {
    match lengths(kind) {
        None => "there are the kinds 1 to 7".into(),
        Some(lengths) if lengths.start() == lengths.end() => format!("it has {}", lengths.start()),
        Some(lengths) => format!("it has {} to {}", lengths.start(), lengths.end()),
    }
}

fn read_payload(kind: u16, payload: &mut Bytes<'_>) -> std::result::Result<Reply, Stop> {
    // A payload is whole: whatever it lacks will not come.
    let whole = |stop, payload: &Bytes<'_>| match stop {
        Stop::More => payload.bad(format!("a message of kind {kind} that is too short for its name")),
        bad @ Stop::Bad(_) => bad,
    };
    Ok(match kind {
        SHUT => Reply::Shut { error: u32::from_be_bytes(payload.number()?) },
        PONG => Reply::Pong { value: u32::from_be_bytes(payload.number()?) },
        RESUME_ACK => Reply::ResumeAck { value: u32::from_be_bytes(payload.number()?) },
        REQUEST | REQUEST_NAMED => {
            let start = u64::from_be_bytes(payload.number()?);
            let length = u32::from_be_bytes(payload.number()?);
            let named = (kind == REQUEST_NAMED).then(|| payload.name()).transpose();
            Reply::Request { block: named.map_err(|stop| whole(stop, payload))?, start, length }
        }
        RECEIVED => {
            let block = payload.name().map_err(|stop| whole(stop, payload))?;
            // The bitmap comes after the message.
            Reply::Received { block, bitmap: Vec::new() }
        }
        // The table of lengths has let no other kind through.
        _ => Reply::SwitchoverAck,
    })
}

fn read_bitmap(bytes: &mut Bytes<'_>) -> std::result::Result<Vec<u8>, Stop> {
    let start = Bytes { rest: bytes.rest, at: bytes.at };
    let size = u64::from_be_bytes(bytes.number()?);
    if size > MOST_BITMAP || size % 8 != 0 {
        let limit = "a multiple of 8 up to 67108864 was expected";
        return Err(start.bad(format!("a bitmap of {size} bytes; {limit}")));
    }
    let bitmap = bytes.take(size as usize)?.to_vec();
    let end = Bytes { rest: bytes.rest, at: bytes.at };
    match u64::from_be_bytes(bytes.number()?) {
        BITMAP_END => Ok(bitmap),
        other => Err(end.bad(format!("a bitmap ends in {other:#018x}, not in {BITMAP_END:#018x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies() -> impl Strategy<Value = Reply> {
        let block = "[ -~]{0,20}|[a-z]{255}";
        prop_oneof![
            any::<u32>().prop_map(|error| Reply::Shut { error }),
            any::<u32>().prop_map(|value| Reply::Pong { value }),
            (proptest::option::of(block), any::<u64>(), any::<u32>())
                .prop_map(|(block, start, length)| Reply::Request { block, start, length }),
            (block, 0usize..5, any::<u8>())
                .prop_map(|(block, words, fill)| Reply::Received { block, bitmap: vec![fill; words * 8] }),
            any::<u32>().prop_map(|value| Reply::ResumeAck { value }),
            Just(Reply::SwitchoverAck),
        ]
    }

    fn all(bytes: &[u8], piece: usize) -> Result<Vec<(u64, Reply)>> {
        let mut reader = ReplyReader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(reply) = reader.next_reply()? {
                found.push(reply);
            }
        }
        Ok(found)
    }

    #[test]
    fn the_bytes_are_those_of_a_real_destination() {
        // From a post-copy between two QEMUs: two pongs, a remote fault, one more in the same block, the end.
        let bytes: &[u8] = b"\0\x02\0\x04\0\0\0\x01\0\x02\0\x04\0\0\0\x02\
            \0\x03\0\x13\0\0\0\0\0\x66\xa0\0\0\0\x10\0\x06pc.ram\
            \0\x04\0\x0c\0\0\0\0\0\x95\x80\0\0\0\x10\0\0\x01\0\x04\0\0\0\0";
        let request = |block: Option<&str>, start| Reply::Request {
            block: block.map(str::to_owned),
            start,
            length: 4096,
        };
        let expected = [
            Reply::Pong { value: 1 },
            Reply::Pong { value: 2 },
            request(Some("pc.ram"), 0x66_a000),
            request(None, 0x95_8000),
            Reply::Shut { error: 0 },
        ];
        let found: Vec<Reply> = all(bytes, 7).unwrap().into_iter().map(|(_, reply)| reply).collect();
        assert_eq!(found, expected);
        let encoded: Vec<u8> = expected.iter().flat_map(|reply| reply.encode().unwrap()).collect();
        assert_eq!(encoded, bytes);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let pong = Reply::Pong { value: 1 }.encode().unwrap();
        for (bytes, at, reason) in [
            (&b"\0\0\0\0"[..], 8, "kind 0"),
            (b"\0\x08\0\0", 8, "kinds 1 to 7"),
            (b"\0\x01\0\x05", 8, "it has 4"),
            (b"\0\x03\0\x0c", 8, "it has 13 to 268"),
            (b"\0\x05\0\x02\x05a", 13, "too short for its name"),
            (b"\0\x05\0\x03\x01ab", 14, "bytes too many"),
            (b"\0\x05\0\x02\x01\xff", 13, "no text"),
            (b"\0\x05\0\x01\0\0\0\0\0\x10\0\0\0", 13, "67108864"),
            (b"\0\x05\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 21, "ends in"),
        ] {
            let bytes = [&pong, bytes, &[0; 16]].concat();
            match all(&bytes, bytes.len()).unwrap_err() {
                Error::Stream { offset, reason: found } => {
                    assert!(found.contains(reason), "{reason}: {found}");
                    assert_eq!(offset, at, "{found}");
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_name_that_no_message_holds_is_refused() {
        let long = Reply::Request { block: Some("x".repeat(256)), start: 0, length: 0 };
        assert!(matches!(long.encode(), Err(Error::Usage(_))));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            replies in proptest::collection::vec(replies(), 0..8),
            piece in 1usize..40,
        ) {
            let encoded: Vec<Vec<u8>> = replies.iter().map(|reply| reply.encode().unwrap()).collect();
            let mut at = 0;
            let expected: Vec<(u64, Reply)> = std::iter::zip(&encoded, replies).map(|(bytes, reply)| {
                at += bytes.len() as u64;
                (at - bytes.len() as u64, reply)
            }).collect();
            prop_assert_eq!(all(&encoded.concat(), piece).unwrap(), expected);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, piece in 1usize..40) {
            let _ = all(&bytes, piece);
        }

        #[test]
        fn a_cut_message_waits_for_its_rest(reply in replies(), cut: prop::sample::Index) {
            let bytes = reply.encode().unwrap();
            let mut reader = ReplyReader::default();
            reader.push(&bytes[..cut.index(bytes.len())]);
            prop_assert_eq!(reader.next_reply().unwrap(), None);
            prop_assert_eq!(reader.offset(), 0);
        }
    }
}
