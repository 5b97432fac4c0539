//! Counts what each thread allocates, for tests of what may not. Counting takes an allocator, and that takes `unsafe`:
//! the only one among the tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has asked for memory. Of this thread alone, because other tests run beside it.
pub fn allocated() -> u64 {
    ALLOCATED.get()
}

struct Counting;

fn count() {
    ALLOCATED.set(ALLOCATED.get() + 1);
}

// SAFETY: everything is passed on to the system's allocator unchanged; the counter is a constant-initialised cell without
// a destructor, so that reaching it neither allocates nor fails while a thread ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    // Without this, growing would be an allocation, a copy and a release for all tests of the crate.
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
