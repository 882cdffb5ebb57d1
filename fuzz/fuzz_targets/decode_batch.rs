#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in ["zstd", "lz4", "delta-zstd", "delta-lz4", "xbzrle", "zero+dedup+lz4"] {
        switchover_fuzz::decode_batch(name, data);
    }
});
