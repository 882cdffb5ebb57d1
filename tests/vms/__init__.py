"""Real QEMUs for tests: found, started, migrated, and recorded.

Not part of the product. `machine` starts one, `recorder` stands between two and keeps what they say, `capture` makes
recordings of every kind, each with the memory that the destination QEMU itself reports. A test asks for the fixture
`captures` (or `qemu_72`, `qemu_100`); all processes end with the `with` block or the session that started them.
"""
