#![no_main]
// A hostile multifd channel beside a list of two blocks.
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchover_fuzz::stream::multifd_channel(data));
