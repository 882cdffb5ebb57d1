"""Initial file systems for guests that are a Linux: a cpio archive in the form that the kernel unpacks.

Layout: Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`, the format "newc".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def archive(files: Mapping[str, bytes | None]) -> bytes:
    """The archive of some files by path, all executable; `None` stands for a folder, which comes before what is in it.

    >>> archive({"tmp": None})[:6]
    b'070701'
    """
    parts = [_entry(name, content, index) for index, (name, content) in enumerate(files.items(), 1)]
    return b"".join([*parts, _entry("TRAILER!!!", b"", 0)])


def _entry(name: str, content: bytes | None, index: int) -> bytes:
    mode = 0o040755 if content is None else 0o100755
    content = content or b""
    fields = (index, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % 4)
