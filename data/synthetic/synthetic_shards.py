"""Prepared shards out of simulated blocks: a worker simulates a block, writes it and forgets it."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from synthetic_columns import Column, ColumnMaker
from synthetic_truth import Best, summarize
from synthetic_users import Block, simulate
from synthetic_world import DAY, START, TEST_DAY, VALID_DAY, Options, World

from loopctr_tf.features.prepared import SPLITS, PreparedWriter, shard_path
from loopctr_tf.features.records import WireColumn, serialize_rows, wire_values, write_records
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.fit import with_statistics
from loopctr_tf.prepare.rule_parts import TableRule

TEMPLATE = Path(__file__).with_name("schema.yaml")
TRUTH = "truth"
"""Folder of the probabilities: they are never in the rows, where a model could read them."""
JUDGED = SPLITS[1:]
EVENTS_AT_ONCE = 1 << 20
"""Maximum events of histories that are made into rows at a time."""


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
    """What a worker reports of a block that it wrote.

    Attributes:
      counts: "<split> rows", "<split> clicks" and sums over all rows for stats.json.
      fit: of the training rows: by table how often each of its names occurs, by number the sums of its
        powers 0, 1 and 2.
      truth: for each judged split the probabilities, float32, in the order of the rows.
      best, without: for each judged split the summary of the true probabilities, and of what they would
        be without the histories' part.
    """

    counts: Counter = dataclasses.field(default_factory=Counter)
    fit: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    truth: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    best: dict[str, dict] = dataclasses.field(default_factory=dict)
    without: dict[str, dict] = dataclasses.field(default_factory=dict)


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
        self.fitted_tables = {t.name: TableRule() for t in self.schema.tables if t.vocabulary == ()}
        self._wires = {id(names): wire_values(names) for names in self._maker.names.values()}

    def write(self, number: int) -> Written:
        """One shard of each split, with the rows of a block in the order of time."""
        block = simulate(self._maker.world, self.options, number)
        splits, row, written = split_of(block), block.rows, Written()
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
                for feature in self.schema.all_fields():
                    self._measure(feature, columns[feature.name], written.fit)
            for sequence in self.schema.sequences:
                lengths = np.diff(columns[sequence.fields[0].name].splits)
                written.counts[f"{sequence.name} events"] += int(lengths.sum())
                written.counts[f"{sequence.name} empty"] += int((lengths == 0).sum())
            wires = {
                feature.name: self._wire(
                    columns[feature.name], self.schema.inputs[feature.name].default
                )
                for feature in self.schema.all_fields()
            }
            wires[self.schema.group] = self._wire(columns[self.schema.group])
            wires[self.schema.label] = WireColumn(wire_values(block.rows["label"][some]))
            yield serialize_rows(wires)

    def _measure(self, feature: Feature, column: Column, fit: dict[str, np.ndarray]) -> None:
        """Adds a column of training rows, each value of a list as often as it is there."""
        if feature.type == "numeric":
            values = column.values[~np.isnan(column.values)].astype(np.float64)
            values = feature.transformed(values)
            _add(fit, feature.name, np.array([len(values), values.sum(), (values**2).sum()]))
        elif feature.table in self.fitted_tables:
            _add(fit, feature.table, np.bincount(column.codes, minlength=len(column.values)))

    def _wire(self, column: Column, default: float | None = None) -> WireColumn:
        if column.codes is None:
            values = np.where(np.isnan(column.values), np.float32(default), column.values)
            return WireColumn(wire_values(values), None, column.splits)
        wire = self._wires.get(id(column.values)) or wire_values(column.values)
        return WireColumn(wire, column.codes, column.splits)

    def fitted(self, fit: dict[str, np.ndarray]) -> Schema:
        """The schema fitted to the sums of all blocks.

        A missing number stays the template's default: rows are written before all training rows are
        known, and the truth reads that default too.
        """
        names, whole = self._maker.names, self._maker.names["whole"]
        counts = {
            name: [pa.table({"value": names.get(name, whole), "n": fit[name]})]
            for name in self.fitted_tables
        }

        def statistics(feature: Feature, sequence: str | None) -> tuple[float, float]:
            count, total, squares = fit[feature.name]
            mean = total / max(count, 1)
            return mean, max(squares / max(count, 1) - mean**2, 0.0) ** 0.5 or 1.0

        fitted = with_statistics(self.schema, self.fitted_tables, (), counts, statistics)
        pairs = zip(self.schema.features, fitted.features, strict=True)
        return fitted.replace(
            features=[
                new.replace(default=old.default) if new.type == "numeric" else new
                for old, new in pairs
            ],
        )


class Collected:
    """Adds up what the workers report, block after block.

    Args:
      folder: of the prepared data.
      blocks: writes them.
    """

    def __init__(self, folder: Path, blocks: BlockWriter):
        self._blocks, self._folder = blocks, folder
        # It makes the folders of the splits, so it comes before the workers.
        self._writer = PreparedWriter(folder, blocks.schema)
        self._truth: dict[str, list[np.ndarray]] = {split: [] for split in JUDGED}
        self._best = {split: Best() for split in JUDGED}
        self._without = {split: Best() for split in JUDGED}
        self._counts: Counter = Counter()
        self._fit: dict[str, np.ndarray] = {}

    def add(self, written: Written) -> int:
        """Takes up the next block; returns its rows."""
        counts = written.counts
        for split in SPLITS:
            self._writer.add(split, counts[f"{split} rows"], counts[f"{split} clicks"])
        self._counts.update(counts)
        for name, sums in written.fit.items():
            _add(self._fit, name, sums)
        for split in JUDGED:
            self._truth[split].append(written.truth[split])
            self._best[split].add(written.best[split])
            self._without[split].add(written.without[split])
        return sum(counts[f"{split} rows"] for split in SPLITS)

    def finish(self, **facts) -> dict:
        """Writes truth, schema and ``stats.json``; returns the last."""
        (self._folder / TRUTH).mkdir()
        for split, parts in self._truth.items():
            np.save(self._folder / TRUTH / f"{split}.npy", np.concatenate(parts))
        counts, rows = self._counts, {split: self._counts[f"{split} rows"] for split in SPLITS}
        without = {split: best.figures() for split, best in self._without.items()}
        stats = self._writer.finish(
            **facts,
            ctr={split: counts[f"{split} clicks"] / max(rows[split], 1) for split in SPLITS},
            histories={
                sequence.name: {
                    "mean_events": counts[f"{sequence.name} events"] / sum(rows.values()),
                    "rows_without": counts[f"{sequence.name} empty"],
                }
                for sequence in self._blocks.schema.sequences
            },
            best={split: best.figures() for split, best in self._best.items()},
            without_histories={
                split: {name: figures[name] for name in ("auc", "gauc")}
                for split, figures in without.items()
            },
        )
        # In place of the template, which was needed before any row was known.
        self._blocks.fitted(self._fit).save(self._folder)
        return stats


def _add(sums: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    sums[name] = sums.get(name, 0) + values
