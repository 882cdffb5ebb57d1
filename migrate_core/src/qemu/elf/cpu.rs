//! A processor's registers, and the notes that debuggers look for.

use crate::qemu::description::Json;
use crate::qemu::devices::DeviceState;

/// Bytes of `struct elf_prstatus` on x86-64; where its process number and its registers are.
const STATUS: usize = 336;
const PROCESS: usize = 32;
const REGISTERS: usize = 112;
/// Version and bytes of the state in the note named `QEMU`.
const QEMU_STATE: (u32, u32) = (1, 440);

/// Registers of an x86-64 processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Registers {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    general: [u64; 16],
    rip: u64,
    flags: u64,
    /// es cs ss ds fs gs.
    segments: [Segment; 6],
    /// ldt tr gdt idt.
    tables: [Segment; 4],
    cr: [u64; 5],
    kernel_gs_base: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Segment {
    selector: u64,
    base: u64,
    limit: u64,
    flags: u64,
}

/// The processors among the devices, in the order of their numbers.
pub(super) fn read(devices: &[DeviceState]) -> Vec<Registers> {
    let mut cpus: Vec<_> = devices.iter().filter(|device| device.name == "cpu").collect();
    cpus.sort_by_key(|device| device.instance);
    cpus.into_iter().filter_map(|device| registers(&device.state)).collect()
}

fn registers(state: &Json) -> Option<Registers> {
    let number = |name: &str| state.get(name).and_then(Json::number);
    let general = state.get("env.regs")?.list()?;
    let mut registers =
        Registers { rip: number("env.eip")?, flags: number("env.eflags")?, ..Registers::default() };
    for (register, value) in registers.general.iter_mut().zip(general) {
        *register = value.number()?;
    }
    for (segment, value) in registers.segments.iter_mut().zip(state.get("env.segs")?.list()?) {
        *segment = Segment::read(value)?;
    }
    for (table, name) in registers.tables.iter_mut().zip(["env.ldt", "env.tr", "env.gdt", "env.idt"]) {
        *table = Segment::read(state.get(name)?)?;
    }
    for index in [0, 2, 3, 4] {
        registers.cr[index] = number(&format!("env.cr[{index}]"))?;
    }
    registers.kernel_gs_base = number("env.kernelgsbase").unwrap_or_default();
    Some(registers)
}

impl Segment {
    fn read(value: &Json) -> Option<Self> {
        let number = |name: &str| value.get(name)?.number();
        Some(Self {
            selector: number("selector")?,
            base: number("base")?,
            limit: number("limit")?,
            flags: number("flags")?,
        })
    }

    /// As the note has it: selector, limit, flags, padding, base.
    fn bytes(&self) -> Vec<u8> {
        let words = [self.selector, self.limit, self.flags, 0].map(|word| (word as u32).to_le_bytes());
        [words.as_flattened(), &self.base.to_le_bytes()].concat()
    }
}

impl Registers {
    /// The notes of the processor of that number.
    pub(super) fn notes(&self, number: usize) -> Vec<u8> {
        [note(b"CORE\0", 1, &self.status(number)), note(b"QEMU\0", 0, &self.state())].concat()
    }

    /// `struct elf_prstatus`: only the process number and the registers say anything.
    fn status(&self, number: usize) -> Vec<u8> {
        let [ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15] = self.general;
        let [es, cs, ss, ds, fs, gs] = self.segments;
        let order = [
            r15,
            r14,
            r13,
            r12,
            bp,
            bx,
            r11,
            r10,
            r9,
            r8,
            ax,
            cx,
            dx,
            si,
            di,
            u64::MAX,
            self.rip,
            cs.selector,
            self.flags,
            sp,
            ss.selector,
            fs.base,
            gs.base,
            ds.selector,
            es.selector,
            fs.selector,
            gs.selector,
        ];
        let mut status = vec![0; STATUS];
        status[PROCESS..PROCESS + 4].copy_from_slice(&(number as u32 + 1).to_le_bytes());
        for (place, value) in status[REGISTERS..].chunks_exact_mut(8).zip(order) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        status
    }

    /// What crash reads to find the kernel.
    fn state(&self) -> Vec<u8> {
        let [ax, cx, dx, bx, sp, bp, si, di, rest @ ..] = self.general;
        let [es, cs, ss, ds, fs, gs] = self.segments;
        let [ldt, tr, gdt, idt] = self.tables;
        let mut state = [QEMU_STATE.0.to_le_bytes(), QEMU_STATE.1.to_le_bytes()].concat();
        let general = [ax, bx, cx, dx, si, di, sp, bp].into_iter().chain(rest).chain([self.rip, self.flags]);
        state.extend(general.flat_map(u64::to_le_bytes));
        for segment in [cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt] {
            state.extend(segment.bytes());
        }
        state.extend(self.cr.iter().chain([&self.kernel_gs_base]).flat_map(|value| value.to_le_bytes()));
        state
    }
}

fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = [name.len() as u32, content.len() as u32, kind].map(u32::to_le_bytes).concat();
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_as_long_as_their_readers_expect() {
        let registers =
            Registers { rip: 0x1234, general: std::array::from_fn(|i| i as u64), ..Registers::default() };
        assert_eq!(registers.state().len(), QEMU_STATE.1 as usize);
        let status = registers.status(2);
        assert_eq!(status.len(), STATUS);
        assert_eq!((status[PROCESS], status[REGISTERS + 16 * 8..][..2].to_vec()), (3, vec![0x34, 0x12]));
        assert_eq!(registers.notes(0).len() % 4, 0);
    }
}
