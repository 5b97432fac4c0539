//! Checks that reading from a netlink source allocates nothing once its buffers have grown.

use std::time::Duration;

use crate::common::{cable, in_namespace, skip};
use crate::counting::allocated;
use net_pulse::source::{SourceChoice, Wake, open};

#[test]
fn a_hundred_ticks_allocate_nothing() {
    // 24 interfaces and loopback, in a namespace that other tests do not touch.
    in_namespace(|| {
        for at in 0..12 {
            cable(&format!("a{at}"), &format!("b{at}"));
        }
        for choice in [SourceChoice::GetStats, SourceChoice::GetLink] {
            let Ok((mut source, _)) = open(choice) else {
                skip(&format!("{choice:?} does not work here"));
                continue;
            };
            let wake = Wake::new().unwrap();
            let (mut readings, mut events) = (Vec::new(), Vec::new());
            let mut tick = || {
                if source.wait(Duration::from_millis(1), &wake).changed {
                    source.notifications(&mut events).unwrap();
                }
                source.read(&mut readings).unwrap();
                assert!(!readings.is_empty());
            };
            tick();
            let before = allocated();
            for _ in 0..100 {
                tick();
            }
            assert_eq!(allocated() - before, 0, "{choice:?}");
        }
    });
}
