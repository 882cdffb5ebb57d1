#![no_main]
// A hostile dictionary, then a hostile page that is decoded with it.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (learnt, encoding) = data.split_at(data.len() / 2);
    let mut codec = switchover_fuzz::codec("zstd");
    if codec.adopt(learnt).is_ok() {
        let _ = codec.decode(encoding, None, &mut [0; 4096]);
    }
});
