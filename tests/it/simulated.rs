//! A kernel and a clock that are data, for the real sampler, writer and store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net_pulse::clock::{Clock, Now};
use net_pulse::error::Result;
use net_pulse::history::PATIENCE;
use net_pulse::http::Context;
use net_pulse::model::{Address, Counters, Link, Reading, Width};
use net_pulse::source::{LinkEvent, Source, Wake, Woken};
use net_pulse::store::Reader;

/// The counters of its links, by their order; the first is where the default route goes.
pub type Kept = Arc<Mutex<Vec<Counters>>>;

pub struct Kernel(pub Kept);

fn ifindex(at: usize) -> u32 {
    at as u32 + 2
}

impl Source for Kernel {
    fn name(&self) -> &'static str {
        "simulated"
    }
    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        let kept = self.0.lock().unwrap();
        let reading = |(at, counters): (usize, &Counters)| Reading {
            ifindex: ifindex(at),
            counters: *counters,
            width: Width::Bits64,
        };
        out.extend(kept.iter().enumerate().map(reading));
        Ok(())
    }
    fn links(&mut self) -> Result<Vec<Link>> {
        let link = |at: usize| Link {
            ifindex: ifindex(at),
            name: format!("eth{at}"),
            hardware: 1,
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
    fn events(&mut self, _: &mut Vec<LinkEvent>) -> Result<()> {
        Ok(())
    }
}

pub struct Hand(pub Mutex<Now>);

impl Clock for Hand {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

/// A place in memory where there is one: these tests make a hundred thousand transactions, and are none of the machine's
/// disk.
pub fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Asks the history as a request would.
pub fn read<T: Send + 'static>(context: &Context, question: impl FnOnce(&Reader) -> T + Send + 'static) -> T {
    context.history.disk().ask(Instant::now() + PATIENCE, |reader| question(reader.unwrap())).unwrap()
}
