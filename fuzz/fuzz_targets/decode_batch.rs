#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in ["zstd", "lz4", "zero+dedup+lz4"] {
        switchover_fuzz::decode_batch(name, data);
    }
});
