#![no_main]
const CODECS: [&str; 10] =
    ["raw", "zero", "xbzrle", "lz4", "zstd", "delta", "delta-lz4", "dedup", "zero+dedup+xbzrle+lz4", "adaptive"];

// The first byte chooses the codec: to make all ten for every input would take most of the time.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let name = CODECS[usize::from(*choice) % CODECS.len()];
    switchover_fuzz::round_trip(name, data);
    switchover_fuzz::round_trip_batch(name, data);
});
