"""The `_x1` data sets of BARS: a pair of train.csv and test.csv whose rows bring their own histories.

There are two protocols. "honest" cuts a validation split from train.csv and keeps the most recent events
of a history. "bars" does what the BARS benchmark does: all of train.csv is trained on, test.csv is the
validation split as well, so that a model is chosen by the rows that it is judged on, and histories are
cut as BARS cuts them. Figures of one protocol are not to be compared with figures of the other.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from recipe_tables import compare

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SHARD_ROWS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.reading import TypedRows
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.rows import prepare_rows
from loopctr_tf.prepare.typed import WantedColumn

PROTOCOLS = ("honest", "bars")
FILES = {"train": "train.csv", "test": "test.csv"}


class ValidRule(Protocol):
    """Which rows of train.csv the honest protocol validates on.

    Attributes:
      text: the rule in words, for ``stats.json``.
    """

    text: str

    def see(self, table: pa.Table) -> None:
        """Takes in rows of train.csv; all of them are seen before :meth:`chosen` is called."""

    def chosen(self, first: int, table: pa.Table) -> np.ndarray:
        """Whether each row of ``table`` is for validation, bool; ``first`` rows came before it."""


class LastRows:
    """The last ``share`` of the rows in the order of the file, for a file that has no times."""

    def __init__(self, share: float = 0.1):
        self.text = f"the last {share:.0%} of the rows of train.csv, in the order of the file"
        self._share, self._rows = share, 0

    def see(self, table: pa.Table) -> None:
        """Counts the rows."""
        self._rows += len(table)

    def chosen(self, first: int, table: pa.Table) -> np.ndarray:
        """The rows behind the cut."""
        cut = self._rows - max(1, round(self._share * self._rows))
        return np.arange(first, first + len(table)) >= cut


class ByTime:
    """The most recent ``share`` of the rows by ``column``; rows of one time stay together.

    Keeps 8 bytes a row.
    """

    def __init__(self, column: str, share: float = 0.1):
        self.text = f"the most recent {share:.0%} of the rows of train.csv by {column}"
        self._column, self._share = column, share
        self._times: list[np.ndarray] = []
        self._cut: int | None = None

    def see(self, table: pa.Table) -> None:
        """Collects the times."""
        self._times.append(table[self._column].to_numpy())

    def chosen(self, first: int, table: pa.Table) -> np.ndarray:
        """The rows at the time of the cut and later."""
        if self._cut is None:
            times = np.concatenate(self._times)
            place = len(times) - max(1, round(self._share * len(times)))
            self._cut, self._times = int(np.partition(times, place)[place]), []
        return table[self._column].to_numpy() >= self._cut


class LongestHistory:
    """Of each user the rows with the longest history: the last ones, where histories grow with time.

    A user whose histories are all of one length is wholly in train. Keeps two numbers a user.
    """

    def __init__(self, user: str, history: str):
        self.text = f"of each {user} the rows of train.csv with the longest {history}"
        self._user, self._history = user, history
        self._bounds = pd.DataFrame({"min": [], "max": []}, dtype=np.int64)

    def see(self, table: pa.Table) -> None:
        """Notes the shortest and the longest history of each user."""
        found = self._lengths(table).groupby(level=0).agg(["min", "max"])
        bounds = pd.concat([self._bounds, found]).groupby(level=0)
        self._bounds = bounds.agg({"min": "min", "max": "max"})

    def chosen(self, first: int, table: pa.Table) -> np.ndarray:
        """The rows whose history is as long as the user's longest, and longer than another."""
        lengths = self._lengths(table)
        bounds = self._bounds.loc[lengths.index]
        longest = bounds["max"].where(bounds["max"] > bounds["min"], -1)
        return lengths.to_numpy() == longest.to_numpy()

    def _lengths(self, table: pa.Table) -> pd.Series:
        lengths = pc.list_value_length(table[self._history]).fill_null(0)
        return pd.Series(lengths.to_numpy().astype(np.int64), table[self._user].to_pylist())


def prepare_bars(
    schema: Schema,
    raw: str | Path,
    out: str | Path,
    wanted: Sequence[WantedColumn],
    protocol: str,
    *,
    facts: Mapping[str, Any],
    min_count: int = 1,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
    shard_rows: int = SHARD_ROWS,
    **settings: Any,
) -> dict[str, Any]:
    """Writes the prepared folder ``out``.

    Args:
      schema: to be fitted.
      raw, wanted, protocol, settings: as for :class:`BarsRows`.
      out: must not exist.
      facts: for stats.json.
      min_count: values in fewer training rows and histories count as unknown.
      skip_bad: leave bad rows out, count them, and list them in rejected.csv.
      workers, progress, shard_rows: as for ``prepare_rows``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for absent or malformed files, a bad row, an unknown protocol, or an existing ``out``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        rejects = Rejects(Path(scratch) / "rejected.csv") if skip_bad else None
        rows = BarsRows(raw, wanted, protocol, rejects=rejects, **settings)
        fitted = (table.name for table in schema.tables if table.vocabulary == ())
        return prepare_rows(
            schema,
            rows,
            out,
            tables={name: {"min_count": min_count} for name in fitted},
            facts={**facts, **rows.facts},
            rejects=rejects,
            workers=workers,
            progress=progress,
            shard_rows=shard_rows,
        )


class BarsRows:
    """The rows of train.csv and test.csv for ``prepare.prepare_rows``, by one of two protocols.

    The honest protocol reads train.csv once more, before anything else, to find its validation rows; a
    file is read by one core, batch after batch.

    Args:
      folder: holds train.csv and test.csv.
      wanted: the columns to read; lists have the separator "^".
      protocol: "honest" or "bars".
      valid: the honest protocol's rule.
      keep_first: history column -> how many events, the first ones, the bars protocol keeps of it; BARS
        cuts at the side at which it pads. Other histories keep the most recent ``max_length`` events of
        the schema, and so do all in the honest protocol.
      published: rows that "train" and "test" have according to the publisher.
      change: makes of each table the one that the schema wants, e.g. with columns copied.
      rejects: takes the bad rows; None makes the first one an error.

    Attributes:
      facts: for ``stats.json``: "protocol", "validation" (the rule in words), and "row_counts" and
        "warnings", which are filled in while the files are read.

    Raises:
      UsageError: for an unknown protocol, or files without the wanted columns.
    """

    def __init__(
        self,
        folder: str | Path,
        wanted: Sequence[WantedColumn],
        protocol: str = "honest",
        *,
        valid: ValidRule,
        keep_first: Mapping[str, int] | None = None,
        published: Mapping[str, int] | None = None,
        change: Callable[[pa.Table], pa.Table] | None = None,
        rejects: Rejects | None = None,
    ):
        if protocol not in PROTOCOLS:
            raise UsageError(f"protocol is {protocol!r}; choose {', '.join(PROTOCOLS)}")
        self._paths = {part: Path(folder) / name for part, name in FILES.items()}
        self._readers = {
            part: TypedRows(path, wanted, rejects=rejects) for part, path in self._paths.items()
        }
        self._honest, self._valid, self._seen = protocol == "honest", valid, False
        self._keep_first = {} if self._honest else dict(keep_first or {})
        self._published, self._change = dict(published or {}), change
        validation = valid.text if self._honest else "test.csv, as BARS has it"
        self.facts: dict[str, Any] = {
            "protocol": protocol,
            "validation": validation,
            "row_counts": {},
            "warnings": [],
        }

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of "train", "valid" or "test" in the order of their file."""
        part = "test" if split == "test" or (split == "valid" and not self._honest) else "train"
        if part == "train" and self._honest and not self._seen:
            for _, table in self._read("train"):
                self._valid.see(table)
            self._seen = True
        for first, table in self._read(part):
            if part == "train" and self._honest:
                chosen = self._valid.chosen(first, table)
                table = table.filter(pa.array(chosen if split == "valid" else ~chosen))
            if len(table):
                table = self._cut(table)
                yield table if self._change is None else self._change(table)

    def _read(self, part: str) -> Iterator[tuple[int, pa.Table]]:
        """(rows before it, table) of a file; its rows are compared with the publisher's."""
        rows = 0
        for table in self._readers[part]:
            yield rows, table
            rows += len(table)
        name, counts = f"rows of {FILES[part]}", self.facts["row_counts"]
        if part in self._published and name not in counts:
            compared = compare({name: self._published[part]}, {name: rows})
            counts |= compared["row_counts"]
            self.facts["warnings"] += compared["warnings"]

    def _cut(self, table: pa.Table) -> pa.Table:
        for name, count in self._keep_first.items():
            column = pc.list_slice(table[name], 0, count)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table
