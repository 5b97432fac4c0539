#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net_pulse_fuzz::zone(bytes));
