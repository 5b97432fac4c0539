//! Counts the allocations of each thread, for tests of code that must not allocate. This needs an allocator of its own,
//! and with it the only `unsafe` code in the tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Number of allocations of this thread. Other tests run at the same time in other threads.
pub fn allocated() -> u64 {
    ALLOCATED.get()
}

struct Counting;

fn count() {
    ALLOCATED.set(ALLOCATED.get() + 1);
}

// SAFETY: all calls are passed to the system's allocator unchanged. The counter is a constant-initialised cell without
// a destructor, so that access to it neither allocates nor fails while a thread ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    // The default `realloc` would allocate, copy and free, which slows down all tests of the crate.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
