#![no_main]
const CODECS: [&str; 10] =
    ["raw", "zero", "xbzrle", "lz4", "zstd", "delta", "delta-lz4", "dedup", "zero+dedup+xbzrle+lz4", "adaptive"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in CODECS {
        switchover_fuzz::round_trip(name, data);
        switchover_fuzz::round_trip_batch(name, data);
    }
});
