#![no_main]
const CODECS: [&str; 6] = ["zstd", "lz4", "delta-zstd", "delta-lz4", "xbzrle", "zero+dedup+lz4"];

// The first byte chooses the codec.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    switchover_fuzz::decode_batch(CODECS[usize::from(*choice) % CODECS.len()], data);
});
