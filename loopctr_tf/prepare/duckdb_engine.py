"""DuckDB on one machine: statements within a memory limit, spilling to disk; parts in processes."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.engine import Shard, mark_part, marked_path, whole_sums, write_part
from loopctr_tf.prepare.files import TableFiles
from loopctr_tf.prepare.kernel import Job
from loopctr_tf.prepare.statements import FILE, PART, PLACE


class DuckDBEngine:
    """See :class:`loopctr_tf.prepare.engine.Engine`.

    Args:
      folder: for everything that is temporary; removed by the caller.
      workers: threads of statements, and processes that work on parts.
      memory: limit of DuckDB's memory, such as "2GB"; what does not fit is on disk.

    Attributes:
      folder: as given.
      origin: see there.
    """

    origin = (FILE,)

    def __init__(self, folder: Path, workers: int, memory: str = "2GB"):
        self.folder, self._workers, self._memory = folder, workers, memory
        self._files: dict[str, TableFiles] = {}
        folder.mkdir()
        self._open()

    def __enter__(self) -> "DuckDBEngine":
        return self

    def __exit__(self, *error) -> None:
        self._connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, table: str, files: TableFiles) -> None:
        """Makes ``raw_<table>``."""
        self._files[table] = files
        self._run(f"CREATE TEMP VIEW raw_{table} AS SELECT * FROM {files.scan()}")

    def create_typed(self, table: str, select: str) -> None:
        """Stores a query of ``raw_<table>`` as ``typed_<table>``."""
        # The order of insertion is that of the files, also with several threads.
        self._run(f"CREATE TABLE stored_{table} AS {select}")
        self._run(f"CREATE VIEW typed_{table} AS SELECT *, rowid AS {PLACE} FROM stored_{table}")

    def bad_lines(self, table: str) -> Iterator[tuple[str, int, str, str]]:
        """(file, line, reason, text) of lines that could not be split into columns."""
        return iter(self._files[table].bad_lines(self._connection))

    def create(self, name: str, select: str, view: bool = False) -> None:
        """Stores a query under a name; a view is computed whenever it is used."""
        self._run(f"CREATE {'VIEW' if view else 'TABLE'} {name} AS {select}")

    def query(self, select: str) -> pa.Table:
        """The rows of a query."""
        return whole_sums(self._run(select).to_arrow_table())

    def batches(self, select: str, most: int) -> Iterator[pa.Table]:
        """The rows of a query in tables of ``most`` rows; no other statement may run meanwhile."""
        for batch in self._run(select).to_arrow_reader(most):
            yield pa.Table.from_batches([batch])

    def split(self, select: str) -> None:
        """Stores a query by its column ``__part``."""
        parts = self.folder / "parts"
        self._run(f"COPY ({select}) TO '{parts}' (FORMAT parquet, PARTITION_BY ({PART}))")
        self._run(
            f"CREATE VIEW parts AS SELECT * FROM read_parquet('{parts}/*/*.parquet', "
            "hive_partitioning = false)"
        )

    def mark(self, job: Job, parts: int, progress: Callable[[int], object]) -> None:
        """Runs the kernel's ``mark`` on every part."""

        def work(part: int) -> int:
            source = self.folder / "parts" / f"{PART}={part}"
            if not source.exists():
                return 0
            table = pq.read_table(source, partitioning=None)
            shutil.rmtree(source)
            return mark_part(table, job, marked_path(self.folder, part))

        self._run("DROP VIEW parts")
        for events in self.map(work, range(parts)):
            progress(events)
        self._run(
            f"CREATE VIEW marked AS SELECT * FROM read_parquet('{self.folder}/marked-*.parquet')"
        )

    def write(
        self, job: Job, parts: int, folder: Path, shard_rows: int, progress: Callable[[int], object]
    ) -> list[Shard]:
        """Writes the rows of every part as shards."""

        def work(part: int) -> list[Shard]:
            source = marked_path(self.folder, part)
            return write_part(source, part, job, folder, shard_rows)

        shards: list[Shard] = []
        for written in self.map(work, range(parts)):
            shards += written
            progress(sum(shard.rows for shard in written))
        return sorted(shards, key=lambda shard: shard.name)

    def _open(self) -> None:
        self._connection = duckdb.connect(
            str(self.folder / "events.duckdb"),
            config={
                "memory_limit": self._memory,
                "threads": self._workers,
                "temp_directory": str(self.folder / "spilled"),
                "preserve_insertion_order": True,
            },
        )
        # Without effect where another process reads the same data; times are in UTC everywhere.
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(
            "CREATE OR REPLACE TEMP MACRO hex_number(digits) AS CAST('0x' || digits AS BIGINT)"
        )

    def _run(self, statement: str) -> Any:
        try:
            return self._connection.execute(statement)
        except duckdb.OutOfMemoryException as error:
            raise UsageError(
                f"DuckDB ran out of memory or disk ({_line(error)}); give --memory more than "
                f"{self._memory}, or a disk with room for --out"
            ) from error
        except duckdb.IOException as error:
            raise UsageError(f"a file cannot be read or written: {_line(error)}") from error

    def map(self, work: Callable[[int], Any], parts: Iterable[int]) -> Iterator[Any]:
        """``work`` of every part, as they are done."""
        if self._workers == 1:
            yield from map(work, parts)
            return
        # A forked process must not have DuckDB's threads and locks.
        self._connection.close()
        pool = ProcessPoolExecutor(
            self._workers, get_context("fork"), initializer=_start, initargs=(work, os.getpid())
        )
        try:
            for task in as_completed([pool.submit(_work, part) for part in parts]):
                yield task.result()
        except BrokenProcessPool as error:
            raise UsageError(
                "a worker was killed, most often for lack of memory; give fewer --workers, or more "
                "memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
            self._open()


_job: Callable[[int], Any] | None = None


def _start(work: Callable[[int], Any], parent: int) -> None:
    """Begins a worker: it ignores Ctrl-C, which its parent handles, and ends when that is gone."""
    global _job
    _job = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(part: int) -> Any:
    return _job(part)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
