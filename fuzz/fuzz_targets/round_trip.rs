#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in ["raw", "zero", "xbzrle", "lz4", "zstd", "delta", "delta-lz4", "dedup", "zero+dedup+xbzrle+lz4"] {
        switchover_fuzz::round_trip(name, data);
    }
});
