#![no_main]
// Hostile messages of a destination.
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchover_fuzz::stream::return_path(data));
