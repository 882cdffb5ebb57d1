//! A B-tree that lives in guest memory: lookups, inserts and deletes at random.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_pcg::rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::node::{Node, FREE, MOST};
use super::pattern::paced;
use super::{too_small, Boot, Tick, Work, Workload};
use crate::error::{Error, Result};
use crate::guest::random::scramble;
use crate::guest::{Region, PAGE};

crate::knobs! {
    /// A B+ tree of 8-byte keys and values in nodes of one page, as in a database's index. The check walks
    /// it: order, bounds, depth, checksums, free pages, and what the keys and values add up to.
    pub struct Btree {
        /// Bytes of nodes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 5e7,
        /// Share of operations that insert or delete, as many of each; the rest look up.
        writes: f64 [Ratio, 0.01..=1.0] = 0.5,
    }
}

/// Operations in one go at most: lookups are not counted by the budget, and a pause waits for them.
const MOST_OPERATIONS: u64 = 512;
/// Entries in a leaf when the tree is built: what random inserts leave on average, ln 2 of full (Yao, "On
/// random 2-3 trees", 1978).
const BUILT: u64 = MOST as u64 * 7 / 10;
/// The least memory, in pages: a root with two leaves, and room to split all of them.
const LEAST_PAGES: u64 = 8;

/// A tree that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tree {
    rate: f64,
    writes: f64,
    random: Pcg32,
    root: u64,
    /// Pages ever used, from the first on.
    used: u64,
    /// The free pages among them: a list through memory.
    free: u64,
    first_free: u64,
    /// Keys come from 0 up to this.
    key_space: u64,
    keys: u64,
    /// Sum over the pairs: stale pages, which are whole in themselves, show in it.
    sum: u64,
}

/// A step of the way from the root to a leaf: the page, its node, the child taken.
type Way = Vec<(u64, Node, usize)>;

fn pair_sum(key: u64, value: u64) -> u64 {
    scramble(key ^ scramble(value))
}

impl Boot for Btree {
    type Program = Tree;
    const KEEPS_DATA: bool = true;

    fn boot(self, seed: u64, ram: &Region) -> Result<Tree> {
        if ram.pages() < LEAST_PAGES {
            return Err(too_small("btree", LEAST_PAGES * PAGE as u64, ram));
        }
        let keys = ram.pages() / 2 * BUILT;
        let random = Pcg32::seed_from_u64(scramble(seed));
        let (rate, writes, key_space) = (self.rate, self.writes, keys * 2);
        let mut tree =
            Tree { rate, writes, random, root: 0, used: 0, free: 0, first_free: 0, key_space, keys, sum: 0 };
        tree.build(ram);
        Ok(tree)
    }
}

impl Tree {
    /// Builds the tree of all even keys from the leaves up.
    fn build(&mut self, ram: &Region) {
        let mut below = Vec::new();
        for first in (0..self.keys).step_by(BUILT as usize) {
            let keys = first..self.keys.min(first + BUILT);
            let entries: Vec<_> = keys.map(|i| (2 * i, self.random.next_u64())).collect();
            self.sum = entries.iter().fold(self.sum, |sum, (k, v)| sum.wrapping_add(pair_sum(*k, *v)));
            below.push((entries[0].0, self.append(ram, &Node { level: 0, entries })));
        }
        for level in 1.. {
            if below.len() == 1 {
                break;
            }
            let groups = below.chunks(BUILT as usize);
            below = groups
                .map(|group| (group[0].0, self.append(ram, &Node { level, entries: group.to_vec() })))
                .collect();
        }
        self.root = below[0].1;
    }

    fn append(&mut self, ram: &Region, node: &Node) -> u64 {
        self.used += 1;
        node.store(ram, self.used - 1);
        self.used - 1
    }

    /// Pages that a split may take.
    fn spare(&self, ram: &Region) -> u64 {
        self.free + ram.pages() - self.used
    }

    /// Puts `node` into a page of its own.
    fn allocate(&mut self, ram: &Region, node: &Node) -> Result<u64> {
        if self.free == 0 {
            return Ok(self.append(ram, node));
        }
        let page = self.first_free;
        self.first_free = self.next_free(ram, page)?;
        self.free -= 1;
        node.store(ram, page);
        Ok(page)
    }

    fn release(&mut self, ram: &Region, page: u64) {
        Node { level: FREE, entries: vec![(self.first_free, 0)] }.store(ram, page);
        self.first_free = page;
        self.free += 1;
    }

    fn next_free(&self, ram: &Region, page: u64) -> Result<u64> {
        match Node::load(ram, page)? {
            Node { level: FREE, entries } if entries.len() == 1 => Ok(entries[0].0),
            _ => Err(damaged(page, "it should be free")),
        }
    }

    fn descend(&self, ram: &Region, key: u64) -> Result<Way> {
        let (mut way, mut page) = (Way::new(), self.root);
        loop {
            let node = Node::load(ram, page)?;
            let (level, child) = (node.level, node.child(key));
            let next = node.entries.get(child).map(|(_, next)| *next);
            let deeper = way.last().is_none_or(|(_, above, _): &(u64, Node, usize)| above.level == level + 1);
            way.push((page, node, child));
            match (level, next) {
                (0, _) if deeper => return Ok(way),
                (_, Some(next)) if deeper && level != FREE => page = next,
                _ => return Err(damaged(page, "it is not where it belongs in the tree")),
            }
        }
    }

    /// Inserts or replaces; returns the nodes written.
    fn insert(&mut self, ram: &Region, key: u64, value: u64) -> Result<u64> {
        let mut way = self.descend(ram, key)?;
        if self.spare(ram) <= way.len() as u64 {
            // Full: deletes make room again.
            return Ok(0);
        }
        let Some((page, mut leaf, _)) = way.pop() else { return Ok(0) };
        match leaf.entries.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => {
                self.sum = self.sum.wrapping_sub(pair_sum(key, leaf.entries[at].1));
                leaf.entries[at].1 = value;
            }
            Err(at) => {
                leaf.entries.insert(at, (key, value));
                self.keys += 1;
            }
        }
        self.sum = self.sum.wrapping_add(pair_sum(key, value));
        self.put_up(ram, way, page, leaf)
    }

    /// Stores a node that may have become too large, splitting it and those above as far as need be.
    fn put_up(&mut self, ram: &Region, mut way: Way, mut page: u64, mut node: Node) -> Result<u64> {
        let mut written = 0;
        loop {
            written += 1;
            if node.entries.len() <= MOST {
                node.store(ram, page);
                return Ok(written);
            }
            let right = Node { level: node.level, entries: node.entries.split_off(MOST / 2) };
            let (least, right_page) = (right.entries[0].0, self.allocate(ram, &right)?);
            node.store(ram, page);
            written += 1;
            let Some((above_page, mut above, child)) = way.pop() else {
                let entries = vec![(0, page), (least, right_page)];
                self.root = self.allocate(ram, &Node { level: node.level + 1, entries })?;
                return Ok(written + 1);
            };
            above.entries.insert(child + 1, (least, right_page));
            (page, node) = (above_page, above);
        }
    }

    /// Deletes if it is there; a page is given back when its last entry goes (Johnson and Shasha, "B-trees
    /// with inserts and deletes: why free-at-empty is better than merge-at-half", 1993).
    fn delete(&mut self, ram: &Region, key: u64) -> Result<u64> {
        let mut way = self.descend(ram, key)?;
        let Some((mut page, mut node, _)) = way.pop() else { return Ok(0) };
        let Ok(mut at) = node.entries.binary_search_by_key(&key, |(key, _)| *key) else { return Ok(0) };
        self.sum = self.sum.wrapping_sub(pair_sum(key, node.entries[at].1));
        self.keys -= 1;
        let mut written = 1;
        loop {
            node.entries.remove(at);
            match way.pop() {
                Some((above_page, above, child)) if node.entries.is_empty() => {
                    self.release(ram, page);
                    (page, node, at) = (above_page, above, child);
                    written += 1;
                }
                _ => break,
            }
        }
        node.store(ram, page);
        Ok(written + self.lower_root(ram)?)
    }

    /// Takes away roots that have a single child, or none left.
    fn lower_root(&mut self, ram: &Region) -> Result<u64> {
        let mut written = 0;
        loop {
            let root = Node::load(ram, self.root)?;
            if root.level == 0 || root.entries.len() > 1 {
                return Ok(written);
            }
            written += 1;
            match root.entries.first() {
                Some((_, child)) => {
                    let old = std::mem::replace(&mut self.root, *child);
                    self.release(ram, old);
                }
                None => Node { level: 0, entries: Vec::new() }.store(ram, self.root),
            }
        }
    }

    fn operate(&mut self, ram: &Region) -> Result<u64> {
        let key = self.random.random_range(0..self.key_space);
        match self.random.random::<f64>() {
            x if x < self.writes / 2.0 => {
                let value = self.random.next_u64();
                self.insert(ram, key, value)
            }
            x if x < self.writes => self.delete(ram, key),
            _ => self.descend(ram, key).map(|_| 0),
        }
    }

    /// Walks the tree below `page`, whose keys must be in `bounds`, and adds up what it holds.
    fn walk(&self, ram: &Region, page: u64, level: u32, bounds: (u64, u64), seen: &mut Seen) -> Result<()> {
        let node = Node::load(ram, page)?;
        seen.pages += 1;
        let sorted = node.entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if node.level != level || !sorted || (node.entries.is_empty() && page != self.root) {
            return Err(damaged(page, "it is not a node of its level, sorted and not empty"));
        }
        for (i, (key, value)) in node.entries.iter().enumerate() {
            let in_bounds = (bounds.0..bounds.1).contains(key) || (level > 0 && i == 0 && *key < bounds.1);
            if !in_bounds {
                return Err(damaged(page, &format!("key {key} does not belong there")));
            }
            if level == 0 {
                seen.keys += 1;
                seen.sum = seen.sum.wrapping_add(pair_sum(*key, *value));
            } else {
                let least = if i == 0 { bounds.0 } else { *key };
                let most = node.entries.get(i + 1).map_or(bounds.1, |(next, _)| *next);
                self.walk(ram, *value, level - 1, (least, most), seen)?;
            }
        }
        Ok(())
    }
}

/// What a walk has found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    pages: u64,
    keys: u64,
    sum: u64,
}

fn damaged(page: u64, how: &str) -> Error {
    Error::Verification(format!("btree: page {page} is damaged: {how}"))
}

impl Workload for Tree {
    fn name(&self) -> &'static str {
        "btree"
    }

    fn rate(&self, _now: Duration) -> f64 {
        paced(self.rate)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let mut work = Work::default();
        while work.written < tick.budget && work.operations < MOST_OPERATIONS {
            work.written += self.operate(ram)? * PAGE as u64;
            work.operations += 1;
        }
        Ok(work)
    }

    fn check(&self, ram: &Region) -> Result<()> {
        let (mut seen, level) = (Seen::default(), Node::load(ram, self.root)?.level);
        if level == FREE {
            return Err(damaged(self.root, "the root is free"));
        }
        self.walk(ram, self.root, level, (0, u64::MAX), &mut seen)?;
        let mut page = self.first_free;
        for _ in 0..self.free {
            page = self.next_free(ram, page)?;
        }
        let expected = Seen { pages: self.used - self.free, keys: self.keys, sum: self.sum };
        match seen == expected {
            true => Ok(()),
            false => Err(Error::Verification(format!("btree: the tree holds {seen:?}, not {expected:?}"))),
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn lookup(tree: &Tree, ram: &Region, key: u64) -> Option<u64> {
        let leaf = tree.descend(ram, key).unwrap().pop().unwrap().1;
        leaf.entries.iter().find(|entry| entry.0 == key).map(|entry| entry.1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_a_map(
            steps in prop::collection::vec((0u64..6, 0u64..400, 1u64..300), 1..60),
        ) {
            let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
            let ram = Region::part(&memory, 1, 10);
            let knobs = Btree { rate: 0.0, writes: 1.0 };
            let mut tree = knobs.boot(1, &ram).unwrap();
            let mut model = BTreeMap::new();
            for key in (0..tree.keys).map(|i| 2 * i) {
                model.insert(key, lookup(&tree, &ram, key).unwrap());
            }
            for (kind, first, count) in steps {
                let space = tree.key_space;
                for key in (0..count).map(|i| (first * 11 + i) % space) {
                    if kind < 2 {
                        if tree.insert(&ram, key, kind).unwrap() > 0 {
                            model.insert(key, kind);
                        }
                    } else {
                        prop_assert_eq!(tree.delete(&ram, key).unwrap() > 0, model.remove(&key).is_some());
                    }
                }
                tree.check(&ram).unwrap();
                prop_assert_eq!(tree.keys, model.len() as u64);
                for key in (first..first + 300).step_by(7) {
                    prop_assert_eq!(lookup(&tree, &ram, key), model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn it_can_be_emptied_and_filled_again() {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let ram = Region::whole(&memory);
        let mut tree = Btree { rate: 0.0, writes: 1.0 }.boot(1, &ram).unwrap();
        for key in 0..tree.key_space {
            tree.delete(&ram, key).unwrap();
        }
        assert_eq!((tree.keys, tree.used - tree.free), (0, 1));
        tree.check(&ram).unwrap();
        for key in 0..tree.key_space {
            tree.insert(&ram, key, key).unwrap();
        }
        tree.check(&ram).unwrap();
        assert!(tree.keys > 20_000, "{}", tree.keys);
    }
}
