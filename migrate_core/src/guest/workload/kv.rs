//! A key-value store that lives in guest memory: a hash index and a slot for each key's value.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::pattern::paced;
use super::zipf::Ranks;
use super::{too_small, Boot, Tick, Work, Workload};
use crate::error::{Error, Result};
use crate::guest::content::Content;
use crate::guest::random::{scramble, stream};
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// A key-value store under the mixes of YCSB (Cooper et al., SoCC 2010). Each value carries its key, a
    /// version and a checksum; the check finds every key and verifies every value.
    pub struct Kv {
        /// Bytes of values written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 5e7,
        /// YCSB's workload: "a" is half reads, half updates; "b" is 95 % reads; "f" is half reads, half
        /// reads that modify and write.
        mix: String [Text] = "a",
        /// Exponent of the Zipf law by which keys are chosen.
        s: f64 [Ratio, 0.0..=10.0] = 0.99,
        /// Bytes of a value.
        value_bytes: u64 [Bytes, 8.0..=65536.0] = 1000,
        /// What values are made of.
        content: Spec [Parts] = Spec::new("text"),
    }
}

/// Bytes before a value in its slot: checksum of the rest, key, version.
const HEAD: usize = 24;
/// Requests served in one go at most: reads are not counted by the budget, and a pause waits for them.
const MOST_REQUESTS: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Mix {
    A,
    B,
    F,
}

impl Mix {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            "f" => Ok(Self::F),
            other => Err(Error::usage(format!("Kv: mix must be \"a\", \"b\" or \"f\", not \"{other}\""))),
        }
    }
}

/// A store that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Store {
    rate: f64,
    mix: Mix,
    ranks: Ranks,
    keys: u64,
    value_bytes: u64,
    content: Content,
    seed: u64,
    random: Pcg32,
    /// Updates ever made: the sum of all versions.
    updates: u64,
}

impl Boot for Kv {
    type Program = Store;
    const KEEPS_DATA: bool = true;

    fn boot(self, seed: u64, ram: &Region) -> Result<Store> {
        let mut store = Store {
            rate: self.rate,
            mix: Mix::parse(&self.mix)?,
            ranks: Ranks::new(self.s, seed),
            keys: 0,
            value_bytes: self.value_bytes,
            content: Content::find(&self.content)?,
            seed,
            random: Pcg32::seed_from_u64(scramble(seed)),
            updates: 0,
        };
        // A key takes its slot and, as the index is kept half empty, two entries.
        let each = store.slot_bytes() as u64 + 16;
        store.keys = ram.bytes() / each;
        if store.keys == 0 {
            return Err(too_small("kv", each, ram));
        }
        store.load(ram);
        Ok(store)
    }
}

impl Store {
    fn slot_bytes(&self) -> usize {
        HEAD + (self.value_bytes as usize).next_multiple_of(8)
    }

    fn entries(&self) -> u64 {
        2 * self.keys
    }

    fn slot_at(&self, slot: u64) -> u64 {
        self.entries() * 8 + slot * self.slot_bytes() as u64
    }

    /// The index's entries from where `key` belongs on.
    fn probe(&self, key: u64) -> impl Iterator<Item = u64> {
        let entries = self.entries();
        let first = ((u128::from(scramble(key)) * u128::from(entries)) >> 64) as u64;
        (0..entries).map(move |i| (first + i) % entries * 8)
    }

    fn load(&self, ram: &Region) {
        (0..self.entries()).for_each(|entry| ram.write_u64(entry * 8, 0));
        let mut bytes = vec![0; self.slot_bytes()];
        for key in 0..self.keys {
            if let Some(free) = self.probe(key).find(|entry| ram.read_u64(*entry) == 0) {
                ram.write_u64(free, key + 1);
            }
            self.put(ram, key, key, 0, &mut bytes);
        }
    }

    /// The slot of `key`, by way of the index.
    fn find(&self, ram: &Region, key: u64) -> Result<u64> {
        for entry in self.probe(key) {
            match ram.read_u64(entry) {
                0 => break,
                slot if slot > self.keys => {
                    return Err(damaged(key, &format!("its index leads to slot {slot}")))
                }
                slot if ram.read_u64(self.slot_at(slot - 1) + 8) == key => return Ok(slot - 1),
                _ => {}
            }
        }
        Err(damaged(key, "it is not in the store"))
    }

    /// Reads and verifies the value of `key` in `slot`; returns its version.
    fn get(&self, ram: &Region, key: u64, slot: u64, bytes: &mut [u8]) -> Result<u64> {
        ram.read(self.slot_at(slot), bytes);
        let word =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if word(8) != key || word(0) != xxh3_64(&bytes[8..]) {
            return Err(damaged(key, &format!("its value in slot {slot} does not have its checksum")));
        }
        Ok(word(16))
    }

    /// Writes the value of `version` over what `bytes` hold, and puts it into `slot`.
    fn put(&self, ram: &Region, key: u64, slot: u64, version: u64, bytes: &mut [u8]) {
        self.content
            .apply(&mut bytes[HEAD..][..self.value_bytes as usize], &mut stream(self.seed ^ key, version));
        bytes[8..16].copy_from_slice(&key.to_le_bytes());
        bytes[16..24].copy_from_slice(&version.to_le_bytes());
        let checksum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        ram.write(self.slot_at(slot), bytes);
    }

    /// Serves one request; returns the bytes of values that it wrote.
    fn serve(&mut self, ram: &Region, key: u64, bytes: &mut [u8]) -> Result<u64> {
        let reads = if self.mix == Mix::B { 0.95 } else { 0.5 };
        let reads = self.random.random::<f64>() < reads;
        let slot = self.find(ram, key)?;
        let version = match reads || self.mix == Mix::F {
            true => self.get(ram, key, slot, bytes)?,
            // A blind update knows no more of the old value than its version.
            false => ram.read_u64(self.slot_at(slot) + 16),
        };
        if reads {
            return Ok(0);
        }
        if self.mix != Mix::F {
            bytes.fill(0);
        }
        self.put(ram, key, slot, version.wrapping_add(1), bytes);
        self.updates += 1;
        Ok(self.value_bytes)
    }
}

fn damaged(key: u64, how: &str) -> Error {
    Error::Verification(format!("kv: key {key} is damaged: {how}"))
}

impl Workload for Store {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn rate(&self, _now: Duration) -> f64 {
        paced(self.rate)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let draw = self.ranks.over(self.keys)?;
        let (mut work, mut bytes) = (Work::default(), vec![0; self.slot_bytes()]);
        while work.written < tick.budget && work.operations < MOST_REQUESTS {
            let key = draw(&mut self.random);
            work.written += self.serve(ram, key, &mut bytes)?;
            work.operations += 1;
        }
        Ok(work)
    }

    fn check(&self, ram: &Region) -> Result<()> {
        let used = (0..self.entries()).filter(|entry| ram.read_u64(entry * 8) != 0).count() as u64;
        if used != self.keys {
            return Err(Error::Verification(format!("kv: the index has {used} keys, not {}", self.keys)));
        }
        let (mut updates, mut bytes) = (0u64, vec![0; self.slot_bytes()]);
        for key in 0..self.keys {
            let slot = self.find(ram, key)?;
            updates = updates.wrapping_add(self.get(ram, key, slot, &mut bytes)?);
        }
        match updates == self.updates {
            true => Ok(()),
            false => {
                let made = self.updates;
                Err(Error::Verification(format!(
                    "kv: values show {updates} updates of {made} that were made"
                )))
            }
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
    use crate::knobs::Knobs;
    use std::sync::Arc;

    /// A lost write that happens to spare whole slots leaves every checksum right.
    #[test]
    fn a_value_that_is_whole_but_old_is_found() {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let ram = Region::whole(&memory);
        let mut store = Kv::from_knobs(&Spec::new("kv").knobs).unwrap().boot(1, &ram).unwrap();
        let (key, mut bytes) = (3, vec![0; store.slot_bytes()]);
        let slot = store.find(&ram, key).unwrap();
        let (mut old, mut new) = (bytes.clone(), bytes.clone());
        ram.read(store.slot_at(slot), &mut old);
        while store.serve(&ram, key, &mut bytes).unwrap() == 0 {}
        ram.read(store.slot_at(slot), &mut new);
        store.check(&ram).unwrap();
        ram.write(store.slot_at(slot), &old);
        store.get(&ram, key, slot, &mut bytes).unwrap();
        assert!(store.check(&ram).unwrap_err().to_string().contains("0 updates of 1"));
        ram.write(store.slot_at(slot), &new);
        store.check(&ram).unwrap();
    }
}
