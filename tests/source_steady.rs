//! A tick of a netlink source allocates nothing once its buffers have grown. In a test crate of its own, because counting
//! allocations takes an allocator, and that takes `unsafe`.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use net_pulse::source::{Choice, Wake, open};
use nix::sched::{CloneFlags, unshare};

struct Counting;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; the counter is a constant-initialised cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// 24 interfaces beside loopback, where root may make them; else those that are there.
fn links() {
    if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("skipped: needs root, 24 interfaces of its own");
        return;
    }
    for at in 0..12 {
        let (one, other) = (format!("a{at}"), format!("b{at}"));
        let arguments = ["link", "add", &one, "type", "veth", "peer", "name", &other];
        if !Command::new("ip").args(arguments).status().is_ok_and(|status| status.success()) {
            println!("skipped: needs ip(8), 24 interfaces of its own");
            return;
        }
    }
}

#[test]
fn a_hundred_ticks_allocate_nothing() {
    links();
    for choice in [Choice::GetStats, Choice::GetLink] {
        let Ok((mut source, _)) = open(choice) else {
            println!("skipped: {choice:?} does not work here");
            continue;
        };
        let wake = Wake::new().unwrap();
        let (mut readings, mut events) = (Vec::new(), Vec::new());
        let mut tick = || {
            if source.wait(Duration::from_millis(1), &wake).changed {
                source.events(&mut events).unwrap();
            }
            source.read(&mut readings).unwrap();
            assert!(!readings.is_empty());
        };
        tick();
        let before = COUNT.get();
        for _ in 0..100 {
            tick();
        }
        assert_eq!(COUNT.get() - before, 0, "{choice:?}");
    }
}
