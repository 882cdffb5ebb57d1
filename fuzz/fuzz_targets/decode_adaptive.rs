#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    switchover_fuzz::decode("adaptive", data);
    switchover_fuzz::decode_batch("adaptive", data);
});
