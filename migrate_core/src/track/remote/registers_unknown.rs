//! Registers where nobody has taught us to change them: every processor but x86-64.

/// Of a thread that is stopped.
#[derive(Clone, Copy)]
pub(super) struct Registers;

impl Registers {
    pub(super) fn read(_tid: i32) -> Result<Self, i32> {
        Err(libc::ENOSYS)
    }

    pub(super) fn write(&self, _tid: i32) -> Result<(), i32> {
        Err(libc::ENOSYS)
    }

    pub(super) fn is_64_bit(&self) -> bool {
        true
    }

    pub(super) fn in_call(&self) -> bool {
        false
    }

    pub(super) fn instruction(&self) -> u64 {
        0
    }

    pub(super) fn answer(&self) -> i64 {
        -i64::from(libc::ENOSYS)
    }

    pub(super) fn calling(&self, _gadget: u64, _number: i64, _argument: u64) -> Self {
        Self
    }

    pub(super) fn enter_wait_again(&mut self) -> bool {
        false
    }
}

pub(super) fn in_sequence(_tid: i32, _instruction: u64) -> bool {
    true
}

pub(super) fn peek(_tid: i32, _address: u64) -> Result<u64, i32> {
    Err(libc::ENOSYS)
}
