//! The delay queue: what is under way on a channel, in order, each item until its time.

use std::collections::VecDeque;

/// Bytes that an item costs beside its payload, so that tiny bursts are bounded in number too.
const OVERHEAD: usize = 256;

/// Items and the times at which they may leave. Time comes in with each call.
#[derive(Debug)]
pub(super) struct DelayQueue<T> {
    items: VecDeque<Waiting<T>>,
    cost: usize,
    limit: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    release: f64,
    cost: usize,
    item: T,
}

impl<T> DelayQueue<T> {
    /// A queue that is full once it holds about `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), cost: 0, limit }
    }

    /// Appends an item of `bytes` bytes that leaves at `release`, or with the one before it if later.
    pub(super) fn push(&mut self, release: f64, bytes: usize, item: T) {
        let release = self.items.back().map_or(release, |last| last.release.max(release));
        let cost = bytes + OVERHEAD;
        self.cost += cost;
        self.items.push_back(Waiting { release, cost, item });
    }

    /// The first item, if its time has come.
    pub(super) fn due(&mut self, now: f64) -> Option<&mut T> {
        self.items.front_mut().filter(|first| first.release <= now).map(|first| &mut first.item)
    }

    /// Removes the first item.
    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.items.pop_front()?;
        self.cost -= first.cost;
        Some(first.item)
    }

    /// When the first item may leave.
    pub(super) fn next_release(&self) -> Option<f64> {
        self.items.front().map(|first| first.release)
    }

    /// Whether the sender has to wait. Pushing stays possible: what was read must go somewhere.
    pub(super) fn is_full(&self) -> bool {
        self.cost >= self.limit
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.cost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_leaves_early() {
        let mut queue = DelayQueue::new(1000);
        queue.push(2.0, 10, 'a');
        assert_eq!(queue.next_release(), Some(2.0));
        assert!(queue.due(1.999).is_none());
        assert_eq!(queue.due(2.0), Some(&mut 'a'));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!((queue.pop(), queue.next_release()), (None, None));
    }

    #[test]
    fn full_by_bytes_or_by_number() {
        let mut bytes = DelayQueue::new(100_000);
        bytes.push(0.0, 100_000, ());
        assert!(bytes.is_full());
        bytes.pop();
        assert!(!bytes.is_full());
        let mut number = DelayQueue::new(100_000);
        (0..1000).for_each(|_| number.push(0.0, 1, ()));
        assert!(number.is_full());
        number.clear();
        assert!(!number.is_full());
    }

    proptest! {
        /// Against a plain list: same items, same order, none before its time.
        #[test]
        fn order_is_kept_and_delay_never_cut(steps in prop::collection::vec((0.0..1.0f64, 0.0..3.0f64), 1..80)) {
            let mut queue = DelayQueue::new(usize::MAX);
            let (mut now, mut expected) = (0.0, 0);
            for (number, &(gap, delay)) in steps.iter().enumerate() {
                now += gap;
                queue.push(now + delay, 1, (number, now + delay));
                while let Some(&mut (item, release)) = queue.due(now) {
                    prop_assert_eq!(item, expected);
                    prop_assert!(release <= now);
                    queue.pop();
                    expected += 1;
                }
            }
            while let Some((item, _)) = queue.pop() {
                prop_assert_eq!(item, expected);
                expected += 1;
            }
            prop_assert_eq!(expected, steps.len());
            prop_assert!(queue.cost == 0);
        }
    }
}
