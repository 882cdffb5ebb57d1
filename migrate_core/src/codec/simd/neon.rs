//! Kernels of AArch64's NEON. `cargo check --target aarch64-unknown-linux-gnu` accepts them; no machine has run them.

use std::arch::aarch64::*;

use super::{runs, scalar, Kernels, Page, Room, Wrong, CHUNK};

/// NEON belongs to every AArch64.
pub fn available() -> [Option<&'static Kernels>; 1] {
    [std::arch::is_aarch64_feature_detected!("neon").then_some(&NEON)]
}

static NEON: Kernels = Kernels { name: "NEON", is_zero, equal, encode, apply };

#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array is as long as the register, and the load needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn is_zero(page: &Page) -> bool {
    page.as_chunks::<CHUNK>().0.iter().all(|chunk| {
        let all = chunk.as_chunks::<16>().0.iter().fold(vdupq_n_u8(0), |all, b| vorrq_u8(all, load(b)));
        vmaxvq_u8(all) == 0
    })
}

#[target_feature(enable = "neon")]
fn differ(old: &[u8; CHUNK], new: &[u8; CHUNK]) -> bool {
    let lanes = old.as_chunks::<16>().0.iter().zip(new.as_chunks::<16>().0);
    vmaxvq_u8(lanes.fold(vdupq_n_u8(0), |all, (a, b)| vorrq_u8(all, veorq_u8(load(a), load(b))))) != 0
}

#[target_feature(enable = "neon")]
fn equal(a: &Page, b: &Page) -> bool {
    !a.as_chunks::<CHUNK>().0.iter().zip(b.as_chunks::<CHUNK>().0).any(|(a, b)| differ(a, b))
}

/// NEON finds equal pages; the bits of those that differ are gathered by plain words.
#[target_feature(enable = "neon")]
fn encode(old: &Page, new: &Page, room: &mut Room) -> Option<usize> {
    if equal(old, new) {
        return Some(0);
    }
    runs::write(&scalar::difference(old, new), new, room)
}

#[target_feature(enable = "neon")]
fn apply(data: &[u8], page: &mut Page) -> Result<(), Wrong> {
    runs::apply(data, page, runs::place)
}
