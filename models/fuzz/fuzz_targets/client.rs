#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pagewire_fuzz::client::run(input));
