#![no_main]
// A hostile mapped-ram file, from its list of blocks on.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut stream = b"QEVM\0\0\0\x03\x07\0\0\0\x01m\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0amapped-ram".to_vec();
    stream.extend(b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04");
    stream.extend(data);
    switchover_fuzz::stream::main_channel(&stream);
});
