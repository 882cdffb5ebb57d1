//! Guests as a whole: pausing, crashes, and programs that were made elsewhere.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::workload::{Tick, Work, WORKLOADS};
use super::*;

const BYTES: u64 = 1 << 20;

fn hash(memory: &GuestMemory) -> Vec<u64> {
    (0..memory.pages()).map(|page| memory.hash_page(page)).collect()
}

fn until_progress(guest: &Guest) {
    let before = guest.progress().operations;
    while guest.progress().operations == before {
        guest.check_alive().unwrap();
        std::thread::yield_now();
    }
}

/// What a binding makes of a callable: not in the registry, and it may do anything.
struct Foreign {
    calls: u64,
    each: Call,
}

impl Workload for Foreign {
    fn name(&self) -> &'static str {
        "a callable of mine"
    }
    fn rate(&self, _now: Duration) -> f64 {
        f64::INFINITY
    }
    fn run(&mut self, ram: &Region, _tick: Tick) -> Result<Work> {
        self.calls += 1;
        (self.each)(ram, self.calls)
    }
    fn check(&self, ram: &Region) -> Result<()> {
        match ram.read_u64(0) {
            calls if calls == self.calls => Ok(()),
            other => Err(Error::Verification(format!("{other}, not {}", self.calls))),
        }
    }
    fn save(&self) -> Result<Value> {
        Ok(self.calls.into())
    }
}

fn count(ram: &Region, calls: u64) -> Result<Work> {
    ram.write_u64(0, calls);
    Ok(Work { written: PAGE as u64, operations: 1 })
}

/// What a foreign program does in a call, of which it is told the number.
type Call = fn(&Region, u64) -> Result<Work>;

fn foreign(each: Call) -> Guest {
    let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES)).unwrap());
    Guest::with_workloads(memory, vec![Box::new(Foreign { calls: 0, each })]).unwrap()
}

#[test]
fn a_pause_stops_all_writes_and_a_resume_goes_on() {
    for entry in WORKLOADS.entries {
        let workload = Spec::new(entry.name);
        let workload = if entry.name == "phases" { workload } else { workload.with("rate", 0) };
        let mut guest = Guest::new(&GuestSpec::new(Layout::single(BYTES), vec![workload; 2], 3)).unwrap();
        for _ in 0..3 {
            guest.resume().unwrap();
            until_progress(&guest);
            guest.pause();
            let (paused, progress) = (hash(guest.memory()), guest.progress());
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(hash(guest.memory()), paused, "{} wrote while paused", entry.name);
            assert_eq!(guest.progress(), progress);
            guest.check().unwrap();
        }
    }
}

#[test]
fn a_busy_guest_can_be_checked_as_it_runs() {
    let workload = Spec::new("kv").with("rate", 0);
    let mut guest = Guest::new(&GuestSpec::new(Layout::single(BYTES), vec![workload], 3)).unwrap();
    guest.resume().unwrap();
    for _ in 0..50 {
        guest.check().unwrap();
    }
    until_progress(&guest);
}

#[test]
fn memory_is_filled_as_asked() {
    let spec = GuestSpec {
        fill: Spec::new("random"),
        ..GuestSpec::new(Layout::single(BYTES), vec![Spec::new("idle")], 1)
    };
    let guest = Guest::new(&spec).unwrap();
    assert!((0..guest.memory().pages()).all(|page| !guest.memory().is_zero(page)));
    let spec = GuestSpec { fill: Spec::new("imgae"), ..spec };
    assert!(Guest::new(&spec).err().unwrap().to_string().contains("`image`"));
    let text = r#"{"layout": {"blocks": []}, "workloads": [], "seed": 1}"#;
    assert_eq!(serde_json::from_str::<GuestSpec>(text).unwrap().fill, content::default_fill());
}

#[test]
fn a_foreign_program_runs_moves_and_goes_on() {
    let mut guest = foreign(count);
    guest.resume().unwrap();
    until_progress(&guest);
    guest.pause();
    let state = guest.save().unwrap();
    assert!(restore_known(&state.vcpus[0].workload, Value::Null).is_err());
    let restored = AtomicU64::new(0);
    let restore = |name: &str, state: Value| -> Result<Box<dyn Workload>> {
        assert_eq!(name, "a callable of mine");
        restored.fetch_add(1, Relaxed);
        Ok(Box::new(Foreign { calls: state.as_u64().unwrap(), each: count }))
    };
    let mut moved = Guest::restore(Arc::clone(guest.memory()), state, &restore).unwrap();
    drop(guest);
    moved.check().unwrap();
    moved.resume().unwrap();
    until_progress(&moved);
    moved.check().unwrap();
    assert_eq!(restored.load(Relaxed), 1);
}

#[test]
fn a_crash_is_told_and_nothing_waits_for_it() {
    let crashes: [(Call, &str); 3] = [
        (|_, _| Err(Error::Verification("the heap is damaged".into())), "the heap is damaged"),
        (|_, calls| panic!("call {calls}"), "the workload panicked: call 1"),
        (
            |ram, _| Ok(Work { written: ram.read_u64(1 << 40), operations: 1 }),
            "the workload panicked: 8 bytes",
        ),
    ];
    for (crash, expected) in crashes {
        let mut guest = foreign(crash);
        guest.resume().unwrap();
        while guest.check_alive().is_ok() {
            std::thread::yield_now();
        }
        guest.pause();
        let told = [guest.check_alive().err(), guest.check().err(), guest.save().err()];
        for error in told {
            let error = error.unwrap().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        guest.resume().unwrap();
        guest.pause();
    }
}

#[test]
fn a_check_that_panics_is_damage() {
    struct Careless;
    impl Workload for Careless {
        fn name(&self) -> &'static str {
            "careless"
        }
        fn rate(&self, _now: Duration) -> f64 {
            f64::NAN
        }
        fn run(&mut self, _ram: &Region, _tick: Tick) -> Result<Work> {
            Ok(Work::default())
        }
        fn check(&self, ram: &Region) -> Result<()> {
            Err(Error::Verification(ram.read_u64(u64::MAX - 3).to_string()))
        }
        fn save(&self) -> Result<Value> {
            panic!("nothing to save")
        }
    }
    let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES)).unwrap());
    let mut guest = Guest::with_workloads(memory, vec![Box::new(Careless)]).unwrap();
    guest.resume().unwrap();
    assert!(guest.check().unwrap_err().to_string().contains("panicked"));
    guest.pause();
    assert!(guest.save().unwrap_err().to_string().contains("nothing to save"));
    guest.check_alive().unwrap();
}

#[test]
fn a_guest_of_no_vcpus_or_too_many_is_refused() {
    let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES)).unwrap());
    let none = ExecutionState { vcpus: Vec::new() };
    assert!(Guest::restore(Arc::clone(&memory), none, &restore_known).is_err());
    assert!(Guest::new(&GuestSpec::new(Layout::single(BYTES), Vec::new(), 1)).is_err());
    assert!(Guest::new(&GuestSpec::new(Layout::single(BYTES), vec![Spec::new("idle"); 257], 1)).is_err());
}
