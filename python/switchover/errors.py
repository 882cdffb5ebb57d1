"""What can go wrong: one small tree under [`SwitchoverError`][switchover.errors.SwitchoverError].

Texts name the place (file, offset, knob, command) and the remedy. To tell errors apart use the class, or
`code` where only texts and numbers travel; never the text.

    >>> import switchover as sw
    >>> try:
    ...     sw.policies.DowntimeLimit(limti="300ms")
    ... except sw.UsageError as error:
    ...     print(error.code, "-", error)
    usage - DowntimeLimit has no knob `limti`; did you mean `limit`?
"""

from __future__ import annotations

__all__ = [
    "LinkError",
    "PolicyError",
    "QmpError",
    "StreamError",
    "SwitchoverError",
    "TrackerUnavailable",
    "UsageError",
    "VerificationError",
    "catalogue",
]


class SwitchoverError(Exception):
    """Anything that Switchover raises of its own accord; itself only where the operating system refused."""

    code = "system"


class UsageError(SwitchoverError, ValueError):
    """A wrong argument: a size, a name, a knob, a combination."""

    code = "usage"


class TrackerUnavailable(SwitchoverError):  # noqa: N818  the name says what is the matter
    """A dirty tracker that this kernel, or this guest, cannot have.

    Attributes:
        tracker: Its name in the registry.
        reason: What is missing, and what would provide it.
    """

    code = "tracker"

    def __init__(self, text: str, tracker: str = "", reason: str = "") -> None:
        super().__init__(text, tracker, reason)
        self.tracker = tracker
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class StreamError(SwitchoverError):
    """Bytes that are not what the format says.

    Attributes:
        offset: Position in the stream or file, counted in bytes from its first.
    """

    code = "stream"

    def __init__(self, text: str, offset: int = 0) -> None:
        super().__init__(text, offset)
        self.offset = offset

    def __str__(self) -> str:
        return str(self.args[0])


class LinkError(SwitchoverError):
    """The link or the peer failed. The system's own error, if there is one, is the cause."""

    code = "link"


class PolicyError(SwitchoverError):
    """A policy broke its contract or raised. What it raised is the cause."""

    code = "policy"


class QmpError(SwitchoverError):
    """QEMU refused a command, or does not answer as its protocol says.

    Attributes:
        command: What it was asked; empty where there was no connection.
        words: What QEMU said itself; empty where it said nothing.
    """

    code = "qmp"

    def __init__(self, text: str, command: str = "", words: str = "") -> None:
        super().__init__(text, command, words)
        self.command = command
        self.words = words

    def __str__(self) -> str:
        return str(self.args[0])


class VerificationError(SwitchoverError):
    """Source and destination differ, or a guest found its own data damaged."""

    code = "verification"


def catalogue() -> dict[str, type[SwitchoverError]]:
    """All errors by their `code`.

    >>> catalogue()["stream"].__name__
    'StreamError'
    """
    found: list[type[SwitchoverError]] = [SwitchoverError, *SwitchoverError.__subclasses__()]
    return {error.code: error for error in found}
