#![no_main]
// A hostile main channel: the same is found in it in whatever pieces it comes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchover_fuzz::stream::main_channel(data));
