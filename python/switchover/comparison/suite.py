"""Suites: comparisons written down in TOML, checked before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from switchover import codecs, contents, policies, strategies, units, workloads
from switchover.comparison.bench import compare
from switchover.errors import UsageError
from switchover.link import Link
from switchover.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchover.comparison.run import Run
    from switchover.comparison.source import Given
    from switchover.comparison.table import Table


def _one_of(registry: Any) -> AfterValidator:
    """A part as a text: an unknown name is told with the choices, a wrong knob as everywhere."""

    def check(text: str) -> str:
        name = text.partition(":")[0]
        if name.replace("-", "").lower() not in {known.replace("-", "") for known in registry.names()}:
            raise ValueError(f"no {registry.kind} is called {name!r}; there are: {', '.join(registry.names())}")
        registry.parse(text)
        return text

    return AfterValidator(check)


def _quantity(parse: Callable[[Any], object]) -> AfterValidator:
    def check(value: Any) -> Any:
        parse(value)
        return value

    return AfterValidator(check)


def _named(given: object) -> object:
    """A text, or a list of them, as a table in which each is its own name."""
    if isinstance(given, str):
        return {given: given}
    return {str(text): text for text in given} if isinstance(given, list) else given


def _several(given: object) -> object:
    return [given] if isinstance(given, str) else given


Size = Annotated[int | str, _quantity(units.parse_size)]
Time = Annotated[float | str, _quantity(units.parse_time)]
Workload = Annotated[str, _one_of(workloads.registry)]
Policy = Annotated[list[Annotated[str, _one_of(policies.registry)]], BeforeValidator(_several), Field(min_length=1)]
Strategy = Annotated[str, _one_of(strategies.registry)]
LinkText = Annotated[str, _quantity(Link.of)]
Codec = Annotated[str, _quantity(codecs.registry.of)]


class GuestEntry(BaseModel):
    """A guest: its memory and workload, or the file of a trace."""

    model_config = ConfigDict(extra="forbid")

    memory: Size | None = None
    workload: Annotated[list[Workload], BeforeValidator(_several)] = ["sweep"]
    seed: int = 0
    backing: Literal["anonymous", "memfd"] = "anonymous"
    huge_pages: Literal["never", "transparent", "explicit"] = "never"
    fill: Annotated[str, _one_of(contents.registry)] | None = None
    trace: Path | None = None

    @model_validator(mode="after")
    def _memory_or_trace(self) -> GuestEntry:
        if (self.memory is None) == (self.trace is None):
            raise ValueError("a guest has either memory (and a workload) or a trace")
        return self

    def given(self, base: Path) -> Given:
        """As `compare` takes it; files are looked for beside the suite."""
        if self.trace is not None:
            return Trace.load(base / self.trace)
        return self.model_dump(exclude={"trace"}, exclude_none=True)


class Suite(BaseModel):
    """A comparison in TOML: keys are the arguments of `compare`.

    Guests, strategies, policies and links are tables by name, or lists of texts. A policy may be a list of which the
    first that fires decides.
    """

    model_config = ConfigDict(extra="forbid")

    guests: Annotated[dict[str, GuestEntry], Field(min_length=1)]
    strategies: Annotated[dict[str, Strategy], BeforeValidator(_named), Field(min_length=1)] = {"pre-copy": "pre-copy"}
    policies: Annotated[dict[str, Policy], BeforeValidator(_named), Field(min_length=1)] = {
        "downtime-limit": ["downtime-limit"]
    }
    links: Annotated[dict[str, LinkText], BeforeValidator(_named), Field(min_length=1)] = {"1Gbit/s": "1Gbit/s"}
    codecs: list[Codec] = []
    worlds: Annotated[list[Literal["memory", "sim", "qemu"]], Field(min_length=1)] = ["memory", "sim"]
    repeats: Annotated[int, Field(ge=5)] = 5
    seed: int = 0
    verify: bool = False
    warm_up: Time = "500ms"
    cool_down: Time | None = None
    longest: Time = "10min"
    zero_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    qemu: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> tuple[Suite, Path]:
        """Reads a file; with the suite comes the folder that its traces are beside.

        Raises:
            UsageError: It cannot be read, or says what cannot be; the text names file, key and choices.
        """
        path = Path(path)
        try:
            return cls.model_validate(tomllib.loads(path.read_text())), path.parent
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: this is not TOML: {error}") from error
        except ValidationError as error:
            raise UsageError(f"{path}: {'; '.join(_told(one) for one in error.errors())}") from error

    def run(
        self,
        base: Path = Path(),
        folder: str | Path | None = None,
        repeats: int | None = None,
        on_run: Callable[[int, int, Run], object] | None = None,
    ) -> Table:
        """Runs it; see [`compare`][switchover.comparison.bench.compare]."""
        return compare(
            {name: entry.given(base) for name, entry in self.guests.items()},
            self.strategies,
            self.links,
            policies={name: policies.any_of(*map(policies.parse, texts)) for name, texts in self.policies.items()},
            codecs=self.codecs,
            worlds=self.worlds,
            repeats=repeats or self.repeats,
            folder=folder,
            seed=self.seed,
            verify=self.verify,
            warm_up=self.warm_up,
            cool_down=self.cool_down,
            longest=self.longest,
            zero_share=self.zero_share,
            qemu=self.qemu,
            on_run=on_run,
        )


def _told(error: Any) -> str:
    """One error: where, what, and the choices."""
    where = ".".join(str(key) for key in error["loc"])
    if error["type"] == "extra_forbidden":
        model = GuestEntry if error["loc"][0] == "guests" else Suite
        return f"{where}: there is no such key; there are: {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return f"{where}: is missing"
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {text[:1].lower()}{text[1:]}"
