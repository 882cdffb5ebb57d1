//! Brakes on real vCPUs. A delay of days stands for any sleep: a test that had to wait for it would not end.

use std::time::{Duration, Instant};

use super::{Brake, Guest, GuestSpec, Layout};
use crate::knobs::Spec;

const DAYS: Brake = Brake { duty: 0.0, write_delay: 1e6 };

fn guest(workloads: Vec<Spec>) -> Guest {
    let mut guest = Guest::new(&GuestSpec::new(Layout::single(8 << 20), workloads, 7)).unwrap();
    guest.memory().count_first_writes(true);
    guest.resume().unwrap();
    guest
}

fn unpaced(name: &str) -> Spec {
    Spec::new(name).with("rate", 0.0)
}

/// Workloads of each kind of vCPU that works here.
fn kinds() -> Vec<Spec> {
    #[allow(unused_mut)]
    let mut kinds = vec![unpaced("sweep"), unpaced("kv"), unpaced("stencil")];
    #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
    if super::kvm::probe().works {
        kinds.push(unpaced("kvm"));
    }
    kinds
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn runs_on(guest: &Guest) {
    let before = guest.progress().operations;
    until("it does not run", || guest.progress().operations > before);
}

/// Brakes and waits until the guest sleeps.
fn stand(guest: &Guest, brake: Brake) {
    guest.memory().harvested(0..guest.memory().pages());
    guest.brake(brake);
    let mut last = guest.progress().operations;
    let mut quiet = 0;
    until("it is not held", || {
        std::thread::sleep(Duration::from_millis(2));
        let now = guest.progress().operations;
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        quiet > 20
    });
}

#[test]
fn a_held_guest_pauses_saves_checks_and_ends_at_once() {
    for kind in kinds() {
        let mut guest = guest(vec![kind]);
        runs_on(&guest);
        stand(&guest, DAYS);
        guest.check().unwrap();
        guest.pause();
        guest.save().unwrap();
        guest.resume().unwrap();
        guest.pause();
        guest.resume().unwrap();
        drop(guest);
    }
}

#[test]
fn a_lifted_brake_lets_the_guest_run_at_once() {
    for kind in kinds() {
        let mut guest = guest(vec![kind]);
        runs_on(&guest);
        stand(&guest, DAYS);
        guest.brake(Brake::default());
        runs_on(&guest);
        stand(&guest, DAYS);
        guest.pause();
        guest.brake(Brake::default());
        guest.resume().unwrap();
        runs_on(&guest);
        guest.pause();
        assert!(guest.progress().held_ns > 0);
        guest.check().unwrap();
    }
}

#[test]
fn only_first_writes_are_held() {
    // One vCPU comes to a page that it has not written all the time, the other writes a few again and again.
    let hot = Spec::new("uniform").with("rate", 0.0).with("share", 0.001);
    let guest = guest(vec![unpaced("sweep"), hot]);
    guest.brake(Brake { duty: 0.0, write_delay: 1e-3 });
    let done = |vcpu: usize| guest.vcpus()[vcpu].progress().operations;
    let (first, again) = (done(0), done(1));
    until("the writer does not run", || done(0) >= first + 300);
    let (first, again) = (done(0) - first, done(1) - again);
    assert!(again > 20 * first, "{again} writes to a few pages while {first} went to others");
    assert!(guest.vcpus()[0].dirtied() > 50 * guest.vcpus()[1].dirtied());
}

#[test]
fn a_duty_cycle_takes_its_share_of_the_guests_time() {
    for kind in kinds() {
        let guest = guest(vec![kind]);
        guest.brake(Brake { duty: 0.8, write_delay: 0.0 });
        let from = guest.progress();
        until("it is not held", || guest.progress().held_ns > from.held_ns + 200_000_000);
        guest.pause();
        let to = guest.progress();
        // Of the guest's own figures: a busy machine stretches both.
        let share = (to.held_ns - from.held_ns) as f64 / (to.running_ns - from.running_ns) as f64;
        assert!((0.6..0.9).contains(&share), "{share}");
    }
}

#[test]
fn pauses_do_not_let_a_held_guest_slip_through() {
    let mut guest = guest(vec![unpaced("sweep")]);
    runs_on(&guest);
    stand(&guest, DAYS);
    let before = guest.progress().operations;
    for _ in 0..50 {
        guest.pause();
        guest.resume().unwrap();
    }
    assert_eq!(guest.progress().operations, before);
}
