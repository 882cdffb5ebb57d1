//! A garbage-collected heap that lives in guest memory: a nursery, and two spaces for what survives.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::heap::{Heap, Object, DEPTH, HEAD};
use super::pattern::paced;
use super::{Boot, Tick, Work, Workload};
use crate::error::{Error, Result};
use crate::guest::content::Content;
use crate::guest::random::{scramble, stream};
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Allocates objects that refer to each other and drops others, as a language with a garbage collector
    /// does: writes sweep the nursery, survivors are copied to an old space, which is copied to another
    /// when it is full. The check walks every live object and verifies stamps, links and checksums.
    pub struct Gc {
        /// Bytes allocated and copied per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Greatest size of an object's own data; sizes are uniform from 8 bytes up.
        object_bytes: u64 [Bytes, 8.0..=65536.0] = 256,
        /// What objects hold.
        content: Spec [Parts] = Spec::new("text"),
    }
}

/// Steps in one go at most: looking at an object that stays writes nothing, and a pause waits.
const MOST_STEPS: u64 = 2048;

/// A collection under way. The program stands still meanwhile, but may be paused and checked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Collection {
    /// Whether the old space is collected too.
    major: bool,
    /// Roots below are done.
    root: u64,
    /// Survivors below are done: what they refer to has survived too.
    scan: u64,
}

/// A heap that is churned.
#[derive(Debug, Serialize, Deserialize)]
pub struct Churn {
    rate: f64,
    content: Content,
    seed: u64,
    random: Pcg32,
    heap: Heap,
    /// Where the next object goes in the nursery.
    young: u64,
    /// Where the next survivor goes.
    old: u64,
    /// The space of survivors: 0 or 1.
    space: u64,
    collection: Option<Collection>,
    /// Objects ever made; each has its number for a stamp.
    made: u64,
    /// Sum over the roots' stamps.
    roots: u64,
}

fn root_sum(root: u64, stamp: u64) -> u64 {
    scramble(root ^ scramble(stamp))
}

impl Boot for Gc {
    type Program = Churn;
    const KEEPS_DATA: bool = true;

    fn boot(self, seed: u64, ram: &Region) -> Result<Churn> {
        let heap = Heap::plan(ram, self.object_bytes)?;
        let (content, random) = (Content::find(&self.content)?, Pcg32::seed_from_u64(scramble(seed)));
        let (young, old) = (heap.nursery().start, heap.space(0).start);
        let rate = self.rate;
        let mut churn = Churn {
            rate,
            content,
            seed,
            random,
            heap,
            young,
            old,
            space: 0,
            collection: None,
            made: 0,
            roots: 0,
        };
        churn.populate(ram)?;
        Ok(churn)
    }
}

impl Churn {
    /// An old object for each root, each referring to the one before as far as depth allows.
    fn populate(&mut self, ram: &Region) -> Result<()> {
        let mut next = 0;
        for root in 0..self.heap.roots() {
            let object = self.make(ram, next, self.old)?;
            next = self.old;
            ram.write_u64(self.heap.root(root), self.old);
            self.roots = self.roots.wrapping_add(root_sum(root, object.stamp));
            self.old += object.size;
        }
        Ok(())
    }

    /// Writes an object at `at` that refers to the one at `next`, unless the chain gets too long.
    fn make(&mut self, ram: &Region, next: u64, at: u64) -> Result<Object> {
        self.made += 1;
        let words = self.random.random_range(1..=self.heap.object_bytes() / 8);
        let mut data = vec![0; words as usize * 8];
        self.content.apply(&mut data, &mut stream(self.seed, self.made));
        let after = if next == 0 { None } else { Some(self.heap.load(ram, next)?) };
        let after = after.filter(|object| object.depth < DEPTH);
        let object = Object {
            size: HEAD + words * 8,
            next: if after.is_some() { next } else { 0 },
            stamp: self.made,
            next_stamp: after.as_ref().map_or(0, |object| object.stamp),
            depth: after.map_or(1, |object| object.depth + 1),
        };
        object.store(ram, at, &data);
        Ok(object)
    }

    /// One step of the program, or of a collection; returns the bytes written.
    fn step(&mut self, ram: &Region) -> Result<u64> {
        if let Some(collection) = self.collection {
            return self.collect(ram, collection);
        }
        if self.heap.nursery().end - self.young < self.heap.largest() {
            self.begin_collection();
            return Ok(0);
        }
        self.allocate(ram)
    }

    /// A new object takes the place of a root's, and refers to another root's.
    fn allocate(&mut self, ram: &Region) -> Result<u64> {
        let [root, other] = [0; 2].map(|_| self.random.random_range(0..self.heap.roots()));
        let (place, next) = (self.heap.root(root), ram.read_u64(self.heap.root(other)));
        let dropped = self.heap.load(ram, ram.read_u64(place))?;
        let object = self.make(ram, next, self.young)?;
        ram.write_u64(place, self.young);
        self.young += object.size;
        self.roots = self.roots.wrapping_sub(root_sum(root, dropped.stamp));
        self.roots = self.roots.wrapping_add(root_sum(root, object.stamp));
        Ok(object.size)
    }

    fn begin_collection(&mut self) {
        let nursery = self.young - self.heap.nursery().start;
        let major = self.heap.space(self.space).end - self.old < nursery;
        if major {
            self.old = self.heap.space(1 - self.space).start;
        }
        self.collection = Some(Collection { major, root: 0, scan: self.old });
    }

    /// Cheney's algorithm ("A nonrecursive list compacting algorithm", 1970), a link at a time.
    fn collect(&mut self, ram: &Region, mut collection: Collection) -> Result<u64> {
        let link = if collection.root < self.heap.roots() {
            collection.root += 1;
            self.heap.root(collection.root - 1)
        } else if collection.scan < self.old {
            let at = collection.scan;
            collection.scan += self.heap.load(ram, at)?.size;
            at + 8
        } else {
            self.space = if collection.major { 1 - self.space } else { self.space };
            (self.young, self.collection) = (self.heap.nursery().start, None);
            return Ok(0);
        };
        self.collection = Some(collection);
        let target = ram.read_u64(link);
        let leaves = self.heap.nursery().contains(&target)
            || (collection.major && self.heap.space(self.space).contains(&target));
        if !leaves {
            return Ok(0);
        }
        let (moved, copied) = self.heap.evacuate(ram, target, self.old)?;
        self.old += copied;
        ram.write_u64(link, moved);
        Ok(copied)
    }
}

impl Workload for Churn {
    fn name(&self) -> &'static str {
        "gc"
    }

    fn rate(&self, _now: Duration) -> f64 {
        paced(self.rate)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let mut work = Work::default();
        for _ in 0..MOST_STEPS {
            if work.written >= tick.budget {
                break;
            }
            let written = self.step(ram)?;
            work.written += written;
            // Copying counts as allocating does: progress must not stand still while garbage is collected.
            work.operations += u64::from(written > 0);
        }
        Ok(work)
    }

    fn check(&self, ram: &Region) -> Result<()> {
        let mut roots = 0u64;
        for root in 0..self.heap.roots() {
            let stamp = self.heap.check_chain(ram, ram.read_u64(self.heap.root(root)))?;
            roots = roots.wrapping_add(root_sum(root, stamp));
        }
        match roots == self.roots {
            true => Ok(()),
            false => Err(Error::Verification("gc: roots refer to other objects than they should".into())),
        }
    }

    fn save(&self) -> Result<Value> {
        super::save(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{GuestMemory, Layout};
    use std::sync::Arc;

    #[test]
    fn collections_come_in_both_kinds_and_every_step_can_be_checked() {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let ram = Region::part(&memory, 0, 8);
        let gc = Gc { rate: 0.0, object_bytes: 256, content: Spec::new("random") };
        let mut churn = gc.boot(1, &ram).unwrap();
        let (mut minor, mut major, mut was) = (0, 0, false);
        for _ in 0..12_000 {
            churn.step(&ram).unwrap();
            churn.check(&ram).unwrap();
            match churn.collection {
                Some(Collection { major: true, .. }) if !was => major += 1,
                Some(_) if !was => minor += 1,
                _ => {}
            }
            was = churn.collection.is_some();
        }
        assert!(minor > 3 && major > 3, "{minor} minor, {major} major");
    }
}
