//! Commands: what the source tells the destination.

use super::{Parser, State};
use crate::qemu::cursor::{wrong, Cursor, Read};
use crate::qemu::event::{Command, Event, Ranges, Sink};

/// Bytes of a pair of offset and length.
const RANGE: usize = 16;

impl Parser {
    /// A command, whose first byte the cursor has passed.
    pub(super) fn command(&mut self, mut cursor: Cursor<'_>, sink: &mut dyn Sink) -> Read<()> {
        let number = cursor.be16()?;
        let length = usize::from(cursor.be16()?);
        let at = cursor.offset();
        let payload = cursor.take(length)?;
        let command = decode(number, payload, at)?;
        let used = cursor.used();
        let advised = matches!(command, Command::PostcopyAdvise { sizes: Some(_) });
        self.ram.advised |= advised;
        if let Command::Package { size } = command {
            if self.package_end.is_some() {
                return Err(wrong(self.offset, "a package inside a package"));
            }
            self.package_end = Some(self.offset + used as u64 + u64::from(size));
        }
        self.state = State::Element;
        self.tell(used, &Event::Command(command), sink)
    }
}

/// The command `number` with what it carries.
fn decode(number: u16, payload: &[u8], at: u64) -> Read<Command<'_>> {
    let mut cursor = Cursor::new(payload, at);
    let whole = |lengths: &[usize]| match lengths.contains(&payload.len()) {
        true => Ok(()),
        false => Err(wrong(
            at,
            format!("command {number} carries {} bytes; {lengths:?} was expected", payload.len()),
        )),
    };
    let command = match number {
        1 => whole(&[0]).map(|()| Command::OpenReturnPath)?,
        2 => whole(&[4]).and_then(|()| Ok(Command::Ping { value: cursor.be32()? }))?,
        3 => {
            whole(&[0, RANGE])?;
            let sizes = if payload.is_empty() { None } else { Some((cursor.be64()?, cursor.be64()?)) };
            Command::PostcopyAdvise { sizes }
        }
        4 => whole(&[0]).map(|()| Command::PostcopyListen)?,
        5 => whole(&[0]).map(|()| Command::PostcopyRun)?,
        6 => {
            discard(cursor).map_err(|_| wrong(at, "a discard that is not `0, name, 0, pairs of 16 bytes`"))?
        }
        7 => whole(&[4]).and_then(|()| Ok(Command::Package { size: cursor.be32()? }))?,
        8 => whole(&[0]).map(|()| Command::EnableColo)?,
        9 => whole(&[0]).map(|()| Command::PostcopyResume)?,
        10 => {
            let named =
                cursor.name("a RAM block's name").map_err(|_| wrong(at, "a bitmap asked for no RAM block"));
            Command::ReceivedBitmap { block: named? }
        }
        11 => whole(&[0]).map(|()| Command::SwitchoverStart)?,
        _ => Command::Unknown { number },
    };
    Ok(command)
}

fn discard(mut cursor: Cursor<'_>) -> Read<Command<'_>> {
    let version = cursor.byte()?;
    let block = cursor.name("a RAM block's name")?;
    let zero = cursor.byte()?;
    let at = cursor.offset();
    let mut rest: &[u8] = &[];
    while let Ok(more) = cursor.peek(rest.len() + RANGE) {
        rest = more;
    }
    cursor.take(rest.len())?;
    match (version, zero, cursor.peek(1)) {
        (0, 0, Err(_)) if !rest.is_empty() => Ok(Command::PostcopyDiscard { block, ranges: Ranges(rest) }),
        _ => Err(wrong(at, "not a discard")),
    }
}
