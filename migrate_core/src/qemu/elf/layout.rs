//! Where the RAM blocks of well-known machines lie in the guest's physical memory.
//!
//! Source: QEMU, `hw/i386/pc_piix.c`, `hw/i386/pc_q35.c`, `hw/i386/microvm.c` (default `max-ram-below-4g`),
//! `hw/i386/x86.c` for the BIOS.

const GIB: u64 = 1 << 30;
const FOUR_GIB: u64 = 4 * GIB;

/// Addresses and lengths of the parts of a block of `bytes` bytes; none where it is not known.
pub(super) fn parts(machine: &str, block: &str, bytes: u64) -> Vec<(u64, u64)> {
    let pc = machine.starts_with("pc-") || machine.is_empty() || machine.starts_with("microvm");
    match block {
        "pc.ram" | "microvm.ram" => split(bytes, below_4_gib(machine, bytes)),
        "pc.bios" if pc && bytes <= GIB => vec![(FOUR_GIB - bytes, bytes)],
        _ => Vec::new(),
    }
}

fn below_4_gib(machine: &str, bytes: u64) -> u64 {
    if machine.starts_with("pc-q35") {
        return if bytes >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 };
    }
    if machine.starts_with("microvm") || bytes >= 0xe000_0000 {
        return 0xc000_0000;
    }
    0xe000_0000
}

fn split(bytes: u64, low: u64) -> Vec<(u64, u64)> {
    match bytes.checked_sub(low).filter(|high| *high > 0) {
        Some(high) => vec![(0, low), (FOUR_GIB, high)],
        None => vec![(0, bytes)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_has_a_hole_below_4_gib() {
        assert_eq!(parts("pc-i440fx-7.2", "pc.ram", GIB), [(0, GIB)]);
        assert_eq!(parts("pc-i440fx-7.2", "pc.ram", FOUR_GIB), [(0, 3 * GIB), (FOUR_GIB, GIB)]);
        assert_eq!(parts("pc-q35-7.2", "pc.ram", FOUR_GIB), [(0, 2 * GIB), (FOUR_GIB, 2 * GIB)]);
        assert_eq!(parts("pc-q35-7.2", "pc.bios", 0x40000), [(0xfffc_0000, 0x40000)]);
        assert!(parts("virt-7.2", "mach-virt.ram", GIB).is_empty());
    }
}
