//! A simulated kernel and a simulated clock, for tests of the real sampler, writer and store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net_pulse::clock::{Clock, Now};
use net_pulse::error::Result;
use net_pulse::history::READ_TIMEOUT;
use net_pulse::http::Context;
use net_pulse::model::{Address, Counters, Link, Reading, Width};
use net_pulse::source::{LinkNotification, Source, Wake, Woken};
use net_pulse::store::Reader;

/// Counters of the simulated links, indexed by link. The default route uses the first one.
pub type SharedCounters = Arc<Mutex<Vec<Counters>>>;

/// Source of readings: links `eth0`, `eth1`, ... with these counters.
pub struct Kernel(pub SharedCounters);

fn ifindex(at: usize) -> u32 {
    at as u32 + 2
}

impl Source for Kernel {
    fn name(&self) -> &'static str {
        "simulated"
    }
    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        let all = self.0.lock().unwrap();
        let reading = |(at, counters): (usize, &Counters)| Reading {
            ifindex: ifindex(at),
            counters: *counters,
            width: Width::Bits64,
        };
        out.extend(all.iter().enumerate().map(reading));
        Ok(())
    }
    fn links(&mut self) -> Result<Vec<Link>> {
        let link = |at: usize| Link {
            ifindex: ifindex(at),
            name: format!("eth{at}"),
            hardware_type: 1,
            up: true,
            ..Link::default()
        };
        Ok((0..self.0.lock().unwrap().len()).map(link).collect())
    }
    fn addresses(&mut self) -> Result<Vec<Address>> {
        Ok(Vec::new())
    }
    fn default_route(&mut self) -> Result<Option<u32>> {
        Ok(Some(ifindex(0)))
    }
    fn wait(&mut self, _: Duration, _: &Wake) -> Woken {
        Woken::default()
    }
    fn notifications(&mut self, _: &mut Vec<LinkNotification>) -> Result<()> {
        Ok(())
    }
}

/// A clock that the test sets.
pub struct ManualClock(pub Mutex<Now>);

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

/// A directory in memory if the system has one: these tests commit a hundred thousand transactions, which would wear
/// the disk.
pub fn memory_dir() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() }
}

/// Queries the history on its reader thread, like a request.
pub fn read<T: Send + 'static>(context: &Context, query: impl FnOnce(&Reader) -> T + Send + 'static) -> T {
    context.history.disk().run(Instant::now() + READ_TIMEOUT, |reader| query(reader.unwrap())).unwrap()
}
