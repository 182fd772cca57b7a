"""Prepared shards out of simulated blocks: each worker simulates a block, writes it and forgets it."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from synthetic_columns import ColumnMaker, Columns
from synthetic_truth import Best, summarize
from synthetic_users import Block, simulate
from synthetic_world import DAY, START, TEST_DAY, VALID_DAY, Options, World

from loopctr_tf.features.prepared import SPLITS, PreparedWriter, shard_path
from loopctr_tf.features.records import WireColumn, serialize_rows, wire_values, write_records
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.columns import Column
from loopctr_tf.prepare.fitting import Fit
from loopctr_tf.prepare.rules import TableRule

TEMPLATE = Path(__file__).with_name("schema.yaml")
TRUTH = "truth"
"""Folder of the probabilities: they are never in the rows, where a model could read them."""
JUDGED = SPLITS[1:]
EVENTS_AT_ONCE = 1 << 20
"""Most events of histories that are made into rows at a time."""


def template_schema(options: Options, world: World) -> Schema:
    """schema.yaml with the sizes of a run; vocabularies and statistics are still to be fitted."""
    schema = Schema.load(TEMPLATE)
    sizes = {"item": options.items, "shop": world.shops}
    lengths = {"history": options.short, "long_history": options.long}
    return schema.replace(
        tables=[
            table.replace(hash_buckets=sizes[table.name]) if table.name in sizes else table
            for table in schema.tables
        ],
        sequences=[s.replace(max_length=lengths[s.name]) for s in schema.sequences],
    )


def split_of(block: Block) -> np.ndarray:
    """The split of every row, an index of ``SPLITS``, by its day."""
    day = (block.rows["time"] - START) // DAY
    return (day >= VALID_DAY).astype(np.int64) + (day >= TEST_DAY)


@dataclasses.dataclass
class Written:
    """What a worker tells of a block that it wrote.

    Attributes:
      counts: "<split> rows", "<split> clicks" and sums over all rows for stats.json.
      longest: most events of a row in either sequence.
      fit: of the training rows.
      truth: for each judged split the probabilities, float32, in the order of the rows.
      best, without: for each judged split the summary of the true probabilities, and of what they would
        be without the histories' part.
    """

    counts: Counter
    longest: dict[str, int]
    fit: Fit
    truth: dict[str, np.ndarray]
    best: dict[str, dict]
    without: dict[str, dict]


class BlockWriter:
    """Simulates and writes blocks; made before workers are forked, used in them.

    Args:
      folder: of the prepared data.
      options: of the run.
    """

    def __init__(self, folder: Path, options: Options):
        self.options, self._folder = options, folder
        self._maker = ColumnMaker(World(options))
        self.schema = template_schema(options, self._maker.world)
        to_fit = (table.name for table in self.schema.tables if table.vocabulary == ())
        self.fit = Fit(self.schema, {name: TableRule() for name in to_fit}, frozenset())
        self._wires = {id(names): wire_values(names) for names in self._maker.names.values()}

    def write(self, number: int) -> Written:
        """One shard of each split, with the rows of a block in the order of time."""
        block = simulate(self._maker.world, self.options, number)
        splits, row = split_of(block), block.rows
        written = Written(Counter(), {}, self.fit.empty(), {}, {}, {})
        for code, split in enumerate(SPLITS):
            index = np.flatnonzero(splits == code)
            pieces = self._pieces(block, split, index, written)
            write_records(shard_path(self._folder, split, number), pieces)
            label, user = row["label"][index], row["user"][index]
            written.counts[f"{split} rows"] = len(index)
            written.counts[f"{split} clicks"] = int(label.sum())
            if split in JUDGED:
                probability = row["probability"][index]
                written.truth[split] = probability.astype(np.float32)
                written.best[split] = summarize(probability, label, user)
                written.without[split] = summarize(row["without"][index], label, user)
        return written

    def _pieces(self, block: Block, split: str, index: np.ndarray, written: Written) -> Iterator:
        step = max(1, EVENTS_AT_ONCE // (self.options.short + self.options.long))
        for start in range(0, len(index), step):
            some = index[start : start + step]
            columns = self._maker.rows(block, some, self.options)
            if split == SPLITS[0]:
                _collect(written.fit, columns)
            for sequence in self.schema.sequences:
                lengths = np.diff(columns[sequence.fields[0].name].splits)
                written.counts[f"{sequence.name} events"] += int(lengths.sum())
                written.counts[f"{sequence.name} empty"] += int((lengths == 0).sum())
                longest = max(written.longest.get(sequence.name, 0), int(lengths.max()))
                written.longest[sequence.name] = longest
            yield serialize_rows(self._wire_columns(columns, block.rows["label"][some]))

    def _wire_columns(self, columns: Columns, label: np.ndarray) -> dict[str, WireColumn]:
        wires = {
            self.schema.label: WireColumn(wire_values(label)),
            self.schema.group: self._wire_column(columns[self.schema.group]),
        }
        for feature in self.schema.all_fields():
            default = self.schema.inputs[feature.name].default
            wires[feature.name] = self._wire_column(columns[feature.name], default)
        return wires

    def _wire_column(self, column: Column, default: float = 0.0) -> WireColumn:
        if column.codes is None:
            values = np.where(np.isnan(column.values), np.float32(default), column.values)
            return WireColumn(wire_values(values), None, column.splits)
        wire = self._wires.get(id(column.values)) or wire_values(column.values)
        return WireColumn(wire, column.codes, column.splits)

    def fitted(self) -> Schema:
        """The schema fitted to what ``fit`` has collected.

        A missing number stays the template's default: rows are written before all training rows are
        known, and the truth reads that default too.
        """
        fitted = self.fit.schema()
        pairs = zip(self.schema.features, fitted.features, strict=True)
        return fitted.replace(
            features=[
                new.replace(default=old.default) if new.type == "numeric" else new
                for old, new in pairs
            ],
        )


def _collect(fit: Fit, columns: Columns) -> None:
    """Adds training rows, each value of a list as often as it is there."""
    for feature in fit.draft.all_fields():
        column = columns[feature.name]
        if feature.table is None:
            fit.measure(feature, column.values)
        elif feature.table in fit.counts:
            counts = np.bincount(column.codes, minlength=len(column.values))
            fit.counts[feature.table].add(column.values, counts)


class Collected:
    """Adds up what the workers tell, block after block.

    Args:
      folder: of the prepared data.
      blocks: of which ``fit`` is filled.
    """

    def __init__(self, folder: Path, blocks: BlockWriter):
        self._blocks = blocks
        # It makes the folders of the splits, so it comes before the workers.
        self._writer = PreparedWriter(folder, blocks.schema)
        self._folder = folder
        (folder / TRUTH).mkdir()
        self._truth = {split: GrowingArray(folder / TRUTH / f"{split}.npy") for split in JUDGED}
        self._best = {split: Best() for split in JUDGED}
        self._without = {split: Best() for split in JUDGED}
        self._counts: Counter = Counter()
        self._longest: Counter = Counter()

    def add(self, written: Written) -> int:
        """Takes up the next block; returns its rows."""
        for split in SPLITS:
            counts = written.counts
            self._writer.add(split, counts[f"{split} rows"], counts[f"{split} clicks"])
        self._counts += written.counts
        self._longest |= Counter(written.longest)
        self._blocks.fit.merge(written.fit)
        for split in JUDGED:
            self._truth[split].append(written.truth[split])
            self._best[split].add(written.best[split])
            self._without[split].add(written.without[split])
        return sum(written.counts[f"{split} rows"] for split in SPLITS)

    def finish(self, **facts) -> dict:
        """Writes schema and ``stats.json``; returns the latter."""
        counts, rows = self._counts, {split: self._counts[f"{split} rows"] for split in SPLITS}
        for array in self._truth.values():
            array.close()
        names = [sequence.name for sequence in self._blocks.schema.sequences]
        stats = self._writer.finish(
            **facts,
            ctr={split: counts[f"{split} clicks"] / max(rows[split], 1) for split in SPLITS},
            histories={
                name: {
                    "mean_events": counts[f"{name} events"] / sum(rows.values()),
                    "most_events": self._longest[name],
                    "rows_without": counts[f"{name} empty"],
                }
                for name in names
            },
            best={split: best.figures() for split, best in self._best.items()},
            without_histories={
                split: {name: best.figures()[name] for name in ("auc", "gauc")}
                for split, best in self._without.items()
            },
        )
        # In place of the template, which was needed before any row was known.
        self._blocks.fitted().save(self._folder)
        return stats


class GrowingArray:
    """A one-dimensional float32 .npy file to which numbers are appended."""

    def __init__(self, path: Path):
        self._path, self._count = path, 0
        path.touch()
        self._write_header()

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the number of rows to grow.
        about = {"descr": "<f4", "fortran_order": False, "shape": (self._count,)}
        with open(self._path, "r+b") as file:
            np.lib.format.write_array_header_1_0(file, about)

    def append(self, values: np.ndarray) -> None:
        """Adds ``values`` at the end."""
        with open(self._path, "ab") as file:
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
        self._count += len(values)

    def close(self) -> None:
        """Writes how many numbers there are."""
        self._write_header()
