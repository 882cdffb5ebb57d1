#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchover_fuzz::decode("dedup", data));
