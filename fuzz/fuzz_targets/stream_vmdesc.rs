#![no_main]
// A hostile VM description, and hostile bytes that it is to describe.
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchover_fuzz::stream::description(data));
