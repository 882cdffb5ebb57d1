//! Random numbers: seeded streams, and a bijective scrambler.

use rand_pcg::Pcg64Mcg;

/// A bijection of 64-bit numbers whose outputs look random: the finaliser of SplitMix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014).
pub fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Stream `index` of `seed`: each page, and each write, has its own, whatever thread asks for it.
pub fn stream(seed: u64, index: u64) -> Pcg64Mcg {
    let high = scramble(seed ^ scramble(index));
    Pcg64Mcg::new(u128::from(high) << 64 | u128::from(scramble(high)))
}
