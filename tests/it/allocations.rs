//! Checks that a tick of the real sampler with the real kernel allocates nothing in the steady state.

use std::sync::{Arc, Mutex};

use crate::counting::allocated;
use crate::simulated::ManualClock;
use net_pulse::clock::{BUILD_FLOOR, Now, Zone};
use net_pulse::config::Config;
use net_pulse::live::{Live, StoredHistory};
use net_pulse::model::NetworkStack;
use net_pulse::sampler::Sampler;
use net_pulse::source::{self, SourceChoice, Woken};

#[test]
fn a_tick_allocates_nothing() {
    for choice in [SourceChoice::GetStats, SourceChoice::GetLink] {
        let (source, _) = source::open(choice).unwrap();
        // Includes loopback, so that every machine has traffic. With a chosen primary interface, the sampler does not
        // search for one.
        let config = Config::with_saved(&[("interfaces", "*"), ("primary", "lo")]);
        let live = Arc::new(Live::new(config, Zone::UTC));
        let clock = Arc::new(ManualClock(Mutex::new(Now { mono_ms: 1000, unix_ms: (BUILD_FLOOR + 1000) * 1000 })));
        live.lock().apply_stored_history(StoredHistory::default());
        let reopen = Box::new(move || source::open(choice));
        let mut sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), NetworkStack::default());
        let mut run = |ticks: u32| {
            for _ in 0..ticks {
                // Some traffic before each tick.
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                let _ = socket.send_to(b"x", socket.local_addr().unwrap());
                let before = allocated();
                let sleep = sampler.step(Woken::default());
                let after = allocated();
                clock.0.lock().unwrap().mono_ms += sleep.as_millis() as u64;
                clock.0.lock().unwrap().unix_ms += sleep.as_millis() as i64;
                if after > before {
                    return after - before;
                }
            }
            0
        };
        // These ticks let the buffers grow. Clearing the buffers, as the writer does, keeps their capacity.
        for _ in 0..120 {
            run(1);
        }
        live.lock().unsaved.batch.clear();
        live.lock().unsaved.anchors.clear();
        assert_eq!(run(100), 0, "allocations in one tick of {choice:?}");
        let state = live.lock();
        assert!(state.unsaved.batch.samples.len() >= 100, "{} samples", state.unsaved.batch.samples.len());
    }
}
