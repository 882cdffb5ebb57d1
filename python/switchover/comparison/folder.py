"""Results on disk: a folder that only ever grows, and that a kill at any moment leaves whole."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover.comparison.metric import METRICS
from switchover.comparison.run import Run
from switchover.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Folder:
    """Runs as files: `runs/ID.json`, a file each, and the same figures as Parquet in `table/`.

    A run's file appears at once and whole, by renaming it, and is never written again. Parquet parts are made of
    those files and hold each run once; a session that was killed before it wrote its part leaves that to the next.
    `duckdb` and Polars read `table/*.parquet` as they are. One session at a time writes.

    Args:
        path: Made where it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        for part in ("runs", "table"):
            (self.path / part).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._unlock()
            raise UsageError(f"{self.path}: another comparison is writing there") from error
        for torn in self.path.glob("*/*.tmp"):
            torn.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._to_parquet()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has(self, run: str) -> bool:
        """Whether the run of this id is there."""
        return self._file(run).exists()

    def get(self, run: str) -> Run:
        """The run of this id."""
        return _read(self._file(run))

    def add(self, run: Run) -> None:
        """Keeps a run: when this returns, it survives whatever happens."""
        self._put(self._file(run.id), json.dumps(run.data).encode())

    def runs(self) -> list[Run]:
        """All runs, in the order of their ids.

        Raises:
            UsageError: There are none, or a file is no run.
        """
        found = [_read(path) for path in sorted((self.path / "runs").glob("*.json"))]
        if not found:
            raise UsageError(f"{self.path}: no results of a comparison are there (runs/*.json)")
        return found

    def _file(self, run: str) -> Path:
        return self.path / "runs" / f"{run}.json"

    def _put(self, path: Path, data: bytes) -> None:
        torn = path.with_name(path.name + ".tmp")
        with torn.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        torn.rename(path)
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _to_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        parts = sorted((self.path / "table").glob("*.parquet"))
        known = {run for part in parts for run in pyarrow.parquet.read_table(part, columns=["id"])["id"].to_pylist()}
        files = sorted((self.path / "runs").glob("*.json"))
        fresh = [_row(_read(path)) for path in files if path.stem not in known]
        if fresh:
            sink = pa.BufferOutputStream()
            pyarrow.parquet.write_table(pa.Table.from_pylist(fresh, schema=_schema()), sink, compression="zstd")
            self._put(self.path / "table" / f"{len(parts):05}.parquet", sink.getvalue().to_pybytes())


def _read(path: Path) -> Run:
    try:
        run = Run(json.loads(path.read_bytes()))
        run.report, run.names, run.id  # noqa: B018  each raises where the file is no run
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a run of a comparison: {error}") from error
    return run


_TEXTS = ("id", "case", "arm", "guest", "strategy", "policy", "link", "world", "began", "version", "outcome", "reason")


def _row(run: Run) -> dict[str, Any]:
    data, report = run.data, run.data["report"]
    told = {name: data[name] for name in ("case", "arm", "repeat", "began", "version")}
    ended = {name: report[name] for name in ("outcome", "reason")}
    return {"id": run.id, **told, **run.names, **ended, "rounds": len(report["rounds"]), **data["metrics"]}


def _schema() -> Any:
    import pyarrow as pa

    fields = [(name, pa.string()) for name in _TEXTS] + [("repeat", pa.int32()), ("rounds", pa.int32())]
    return pa.schema(fields + [(name, pa.float64()) for name in METRICS])
