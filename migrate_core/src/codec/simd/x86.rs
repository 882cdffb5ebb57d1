//! Kernels of x86-64: SSE2, AVX2 and AVX-512BW.
//!
//! All loads are unaligned ones: on pages that are aligned they cost the same.

use std::arch::is_x86_feature_detected as detected;
use std::arch::x86_64::*;

use super::{runs, Difference, Kernels, Page, Room, Wrong, CHUNK, PAGE};

/// The sets that this CPU has, the fastest first.
pub fn available() -> [Option<&'static Kernels>; 3] {
    // Bit counting comes with every CPU that has AVX2, but it is detected by itself.
    let bits = detected!("bmi1") && detected!("bmi2");
    let avx512 = detected!("avx512f") && detected!("avx512bw") && detected!("avx512vl") && bits;
    [
        avx512.then_some(&AVX512),
        (detected!("avx2") && bits).then_some(&AVX2),
        detected!("sse2").then_some(&SSE2),
    ]
}

/// Zero detection of all sets, by 128-bit loads: page after page out of memory they reach the bandwidth of plain
/// reads, and wider ones, which touch each cache line once, stay a tenth to a quarter below it (AMD EPYC, Zen 4).
fn is_zero(page: &Page) -> bool {
    // The first chunk tells for almost every page that is not zero.
    zero(&page.as_chunks::<CHUNK>().0[0]) && page.as_chunks::<{ 4 * CHUNK }>().0.iter().all(zero)
}

/// Whether every byte is zero, by one test for all.
fn zero<const N: usize>(bytes: &[u8; N]) -> bool {
    let lanes = bytes.as_chunks::<16>().0.iter();
    // SAFETY: every x86-64 has SSE2; each lane is as long as the register, and the load needs no alignment.
    unsafe {
        let all = lanes
            .fold(_mm_setzero_si128(), |all, lane| _mm_or_si128(all, _mm_loadu_si128(lane.as_ptr().cast())));
        _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_setzero_si128())) == 0xffff
    }
}

/// Kernels of one set, out of a register's width in bytes, its load, and what tells difference.
macro_rules! kernels {
    ($module:ident, $table:ident, $name:literal, $features:literal, $wide:literal, $vector:ty,
     load: $load:path, differ: $differ:expr) => {
        static $table: Kernels = Kernels {
            name: $name,
            is_zero,
            equal: $module::equal,
            encode: $module::encode,
            apply: $module::apply,
        };

        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            fn load(bytes: &[u8; $wide]) -> $vector {
                // SAFETY: the array is as long as the register, and the load needs no alignment.
                unsafe { $load(bytes.as_ptr().cast()) }
            }

            #[target_feature(enable = $features)]
            fn differ(old: &[u8; CHUNK], new: &[u8; CHUNK]) -> u64 {
                let lanes = old.as_chunks::<$wide>().0.iter().zip(new.as_chunks::<$wide>().0);
                let bits = lanes.map(|(old, new)| $differ(load(old), load(new)));
                bits.enumerate().fold(0, |all, (lane, bits)| all | bits << (lane * $wide))
            }

            #[target_feature(enable = $features)]
            pub fn equal(a: &Page, b: &Page) -> bool {
                let (a, b) = (a.as_chunks::<CHUNK>().0, b.as_chunks::<CHUNK>().0);
                let fours = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
                differ(&a[0], &b[0]) == 0
                    && fours.into_iter().all(|(a, b)| {
                        (differ(&a[0], &b[0]) | differ(&a[1], &b[1]))
                            | (differ(&a[2], &b[2]) | differ(&a[3], &b[3]))
                            == 0
                    })
            }

            #[target_feature(enable = $features)]
            pub fn encode(old: &Page, new: &Page, room: &mut Room) -> Option<usize> {
                let mut difference = Difference { words: [0; PAGE / CHUNK], summary: 0 };
                let chunks = old.as_chunks::<CHUNK>().0.iter().zip(new.as_chunks::<CHUNK>().0);
                for (index, (old, new)) in chunks.enumerate() {
                    let bits = differ(old, new);
                    difference.words[index] = bits;
                    difference.summary |= u64::from(bits != 0) << index;
                }
                if difference.summary == 0 {
                    return Some(0);
                }
                runs::write(&difference, new, room)
            }

            #[target_feature(enable = $features)]
            pub fn apply(data: &[u8], page: &mut Page) -> Result<(), Wrong> {
                runs::apply(data, page, runs::place)
            }
        }
    };
}

kernels!(sse2, SSE2, "SSE2", "sse2", 16, __m128i,
    load: _mm_loadu_si128,
    differ: |old, new| u64::from(!_mm_movemask_epi8(_mm_cmpeq_epi8(old, new)) as u16));

kernels!(avx2, AVX2, "AVX2", "avx2,bmi1,bmi2", 32, __m256i,
    load: _mm256_loadu_si256,
    differ: |old, new| u64::from(!_mm256_movemask_epi8(_mm256_cmpeq_epi8(old, new)) as u32));

kernels!(avx512, AVX512, "AVX-512BW", "avx512f,avx512bw,avx512vl,bmi1,bmi2", 64, __m512i,
    load: _mm512_loadu_si512,
    differ: |old, new| _mm512_cmpneq_epi8_mask(old, new));
