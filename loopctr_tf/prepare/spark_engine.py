"""Spark on a cluster, or in local mode: the same statements, respelled; the kernel on executors.

The folder for temporary files and ``--out`` must be one that the driver and all executors share;
executors need numpy, pyarrow, google-crc32c and this package.
"""

import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.engine import Shard, mark_part, marked_path, whole_sums, write_part
from loopctr_tf.prepare.files import TableFiles
from loopctr_tf.prepare.kernel import Job
from loopctr_tf.prepare.statements import FILE, PART, PLACE, TIME, USER

_BAD = "__bad_line"
_SHARD = pa.schema(
    {"split": pa.string(), "name": pa.string(), "rows": pa.int64(), "clicks": pa.int64()}
)
_MARKED = pa.schema({"part": pa.int64(), "events": pa.int64()})


class SparkEngine:
    """See :class:`loopctr_tf.prepare.engine.Engine`.

    Args:
      folder: for everything that is temporary; shared by driver and executors.
      master: of the cluster, e.g. "local[2]", "yarn"; None is what the environment says.
      settings: further ones of Spark.

    Raises:
      UsageError: without PySpark, or if Spark does not start.
    """

    origin = (FILE, PLACE)

    def __init__(
        self, folder: Path, master: str | None = None, settings: Mapping[str, str] | None = None
    ):
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise UsageError(
                "--engine spark needs PySpark and Java 17 or later; pip install loopctr-tf[spark]"
            ) from error
        # Executors work in folders of their own.
        self.folder = folder = folder.absolute()
        self._bad = {}
        folder.mkdir()
        # Executors on this machine take this Python.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName("loopctr prepare")
        if master is not None:
            builder = builder.master(master)
        if (master or "").startswith("local"):
            builder = builder.config("spark.sql.shuffle.partitions", "4")
        for key, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "true",
            "spark.sql.caseSensitive": "true",
            "spark.ui.enabled": "false",
            "spark.sql.execution.arrow.pyspark.enabled": "true",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }.items():
            builder = builder.config(key, value)
        for key, value in (settings or {}).items():
            builder = builder.config(key, value)
        try:
            self._spark = builder.getOrCreate()
        except Exception as error:
            raise UsageError(
                f"Spark does not start: {_line(error)}; is Java 17 or later there?"
            ) from error
        self._spark.sparkContext.setLogLevel("ERROR")
        self._spark.sql(
            "CREATE OR REPLACE TEMPORARY FUNCTION hex_number(digits STRING) RETURNS BIGINT "
            "RETURN CAST(conv(digits, 16, 10) AS BIGINT)"
        )

    def __enter__(self) -> "SparkEngine":
        return self

    def __exit__(self, *error) -> None:
        self._spark.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, table: str, files: TableFiles) -> None:
        """Makes ``raw_<table>``; lines that cannot be split are kept for :meth:`bad_lines`."""
        from pyspark.sql import functions as F

        frame = self._parquet(files) if files.format == "parquet" else self._text(files)
        if files.format != "parquet":
            frame = self._stored(f"read_{table}", frame)
            self._bad[table] = frame.where(F.col(_BAD).isNotNull()).select(FILE, PLACE, _BAD)
            frame = frame.where(F.col(_BAD).isNull()).drop(_BAD)
        frame.createOrReplaceTempView(f"raw_{table}")

    def create_typed(self, table: str, select: str) -> None:
        """Stores a query of ``raw_<table>`` as ``typed_<table>``."""
        self.create(f"typed_{table}", select)

    def bad_lines(self, table: str) -> Iterator[tuple[str, int | None, str, str]]:
        """(file, None, reason, text) of lines that could not be split: Spark does not count lines."""
        if table in self._bad:
            for row in self._bad[table].orderBy(PLACE).toLocalIterator():
                yield row[FILE], None, "wrong number of fields", row[_BAD]

    def create(self, name: str, select: str, view: bool = False) -> None:
        """Stores a query under a name; a view is computed whenever it is used."""
        frame = self._sql(select)
        frame = frame if view else self._stored(name, frame)
        frame.createOrReplaceTempView(name)

    def query(self, select: str) -> pa.Table:
        """The rows of a query."""
        return whole_sums(self._run(lambda: self._sql(select).toArrow()))

    def split(self, select: str) -> None:
        """Stores a query by its column ``__part``."""
        self.create("parts", select)

    def mark(self, job: Job, parts: int, progress: Callable[[int], object]) -> None:
        """Runs the kernel's ``mark`` on every part."""
        folder, shared = self.folder, self._spark.sparkContext.broadcast(job)

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            found = list(batches)
            if not found:
                return
            events = pa.Table.from_batches(found)
            for part in pc.unique(events[PART]).to_pylist():
                own = events.filter(pc.equal(events[PART], part)).drop_columns([PART])
                count = mark_part(own, shared.value, marked_path(folder, part))
                yield pa.RecordBatch.from_pydict({"part": [part], "events": [count]}, _MARKED)

        frame = self._spark.table("parts").repartition(parts, PART)
        frame = frame.sortWithinPartitions(PART, USER, TIME, PLACE)
        done = frame.mapInArrow(work, "part bigint, events bigint")
        for row in self._run(done.collect):
            progress(row["events"])
        self._spark.read.parquet(f"{folder}/marked-*.parquet").createOrReplaceTempView("marked")

    def write(
        self, job: Job, parts: int, folder: Path, shard_rows: int, progress: Callable[[int], object]
    ) -> list[Shard]:
        """Writes the rows of every part as shards, on the executors."""
        work_folder, folder = self.folder, folder.absolute()
        shared = self._spark.sparkContext.broadcast(job)

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for part in batch.column(0).to_pylist():
                    source = marked_path(work_folder, part)
                    shards = write_part(source, part, shared.value, folder, shard_rows)
                    rows = [vars(shard) for shard in shards]
                    yield pa.RecordBatch.from_pylist(rows, _SHARD)

        frame = self._spark.range(parts).repartition(parts, "id")
        done = frame.mapInArrow(work, "split string, name string, rows bigint, clicks bigint")
        shards = [Shard(**row.asDict()) for row in self._run(done.collect)]
        progress(sum(shard.rows for shard in shards))
        return sorted(shards, key=lambda shard: shard.name)

    def _sql(self, select: str):
        return self._run(lambda: self._spark.sql(respelled(select)))

    def _stored(self, name: str, frame):
        path = str(self.folder / name)
        self._run(lambda: frame.write.mode("overwrite").parquet(path))
        return self._spark.read.schema(frame.schema).parquet(path)

    def _run(self, action: Callable):
        """``action()``, with errors of executors as they were raised there."""
        try:
            return action()
        except Exception as error:
            found = re.search(r"loopctr_tf\.errors\.UsageError: (.*)", str(error))
            if found is None:
                raise
            raise UsageError(found[1]) from error

    def _parquet(self, files: TableFiles):
        from pyspark.sql import functions as F

        frame = self._read({"mergeSchema": "true"}).parquet(*map(str, files.paths))
        place = self._file_number(files) + F.col("_metadata.row_index")
        return frame.select(*self._columns(frame, files), self._file(), place.alias(PLACE))

    def _text(self, files: TableFiles):
        """Text and JSON files: those of one head are read together."""
        from pyspark.sql import functions as F

        frames = []
        for head, paths in files.groups():
            names = [name for name in files.columns if head is None or name in head.names]
            names = names if head is None else list(head.names)
            schema = ", ".join(f"`{name.replace('`', '``')}` string" for name in [*names, _BAD])
            options = {"columnNameOfCorruptRecord": _BAD, "mode": "PERMISSIVE"}
            if head is None:
                frame = self._read(options | {"primitivesAsString": "true"}).schema(schema)
                frame = frame.json([str(path) for path in paths])
            else:
                options |= {"sep": head.delimiter, "quote": '"' if head.quoting else "\0"}
                options |= {"escape": '"' if head.quoting else "\0", "multiLine": str(head.quoting)}
                options |= {"header": str(head.lines > 0), "enforceSchema": "true"}
                frame = self._read(options).schema(schema).csv([str(path) for path in paths])
            row = F.monotonically_increasing_id().bitwiseAND(F.lit((1 << 33) - 1))
            place = self._file_number(files) + F.col("_metadata.file_block_start") + row
            columns = self._columns(frame, files)
            frames.append(frame.select(*columns, self._file(), place.alias(PLACE), F.col(_BAD)))
        return functools.reduce(lambda one, other: one.unionByName(other), frames)

    def _read(self, options: dict[str, str]):
        # One piece of a file a partition, so that a row's number in it is one in the piece.
        largest = str(128 << 20)
        self._spark.conf.set("spark.sql.files.maxPartitionBytes", largest)
        self._spark.conf.set("spark.sql.files.openCostInBytes", largest)
        return self._spark.read.options(**options)

    def _columns(self, frame, files: TableFiles) -> list:
        """The columns of all files; those that these do not have are missing values."""
        from pyspark.sql import functions as F

        have = set(frame.columns)
        return [
            F.col(_quoted(name)) if name in have else F.lit(None).cast("string").alias(name)
            for name in files.columns
        ]

    def _file(self):
        from pyspark.sql import functions as F

        return F.regexp_replace(F.col("_metadata.file_path"), "^file:/*", "/").alias(FILE)

    def _file_number(self, files: TableFiles):
        """Where the places of a file begin: files in order, 2^45 places each."""
        from pyspark.sql import functions as F

        pairs = []
        for number, path in enumerate(files.paths):
            pairs += [F.lit(path.resolve().name), F.lit(number << 45)]
        name = F.element_at(F.split(F.col("_metadata.file_path"), "/"), -1)
        return F.element_at(F.create_map(*pairs), name)


def respelled(statement: str) -> str:
    """A statement in Spark's dialect."""
    return sqlglot.transpile(statement, read="duckdb", write="spark")[0]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
