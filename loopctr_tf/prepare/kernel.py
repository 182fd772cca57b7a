"""From a part's events to marked events, and from those to tf.Example records.

A part has all events of some users. Both steps are pure functions of a part, without an engine and
without TensorFlow, so that any process of any engine makes the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.inputs import counts_name
from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.records import Wire, WireColumn, serialize_rows, wire_values
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.count_statements import length, used
from loopctr_tf.prepare.negatives import sample_negatives
from loopctr_tf.prepare.plan import ITEM, LABEL, SPLIT, TIME, USER, Plan, Source
from loopctr_tf.prepare.rule_parts import AGES
from loopctr_tf.prepare.rules import Rules
from loopctr_tf.prepare.spans import Histories, flat_spans
from loopctr_tf.prepare.statements import NEGATIVES, PLACE, distinct_conditions

_EVENTS = 1 << 20
"""Maximum history events processed at once."""
_ARROW = {"string": pa.large_string(), "int64": pa.int64(), "float32": pa.float32()}


@dataclass(frozen=True)
class Job:
    """What the rows of every part are made by.

    Attributes:
      schema: to be fitted; fitted where rows are written.
      rules: of the section `build`.
      plan: the source of every column.
      pool: the items that negatives are drawn from (see ``statements.pool``); None without.
    """

    schema: Schema
    rules: Rules
    plan: Plan
    pool: pa.Table | None = None

    def fitted(self, schema: Schema) -> "Job":
        """The job with a fitted schema."""
        return replace(self, schema=schema)

    @property
    def per_event(self) -> int:
        """Rows for each event: itself and its negatives."""
        return 1 + (0 if self.rules.negatives is None else self.rules.negatives.per_positive)


def sorted_events(events: pa.Table) -> pa.Table:
    """A part's events in the order of user (its bytes), time and place."""
    users = events[USER].combine_chunks().dictionary_encode()
    rank = np.empty(len(users.dictionary), np.int64)
    rank[pc.sort_indices(users.dictionary).to_numpy()] = np.arange(len(rank))
    keys = (events[PLACE].to_numpy(), events[TIME].to_numpy(), rank[users.indices.to_numpy()])
    return events.take(pa.array(np.lexsort(keys)))


def sum_of(field: str) -> str:
    """Column: sum of the transformed ages of a field over the history of a training row."""
    return f"__sum_{field}"


def squares_of(field: str) -> str:
    """Column: sum of their squares."""
    return f"__squares_{field}"


def mark(events: pa.Table, job: Job) -> pa.Table:
    """A part's events, sorted, with what the engine needs to fit the schema.

    Adds in how many training histories an event is, the length of its own histories if it is a row, sums
    of ages, and negatives.

    Args:
      events: of a part, with ``__split``.
      job: see :class:`Job`.
    """
    events = sorted_events(events)
    part = Part(events, job)
    rows = np.flatnonzero(part.split >= 0)
    train = part.split[rows] == 0
    spans = part.histories.spans(rows)
    for sequence in job.schema.sequences:
        low, high = spans[sequence.name]
        lengths = np.zeros(len(events), np.int32)
        lengths[rows] = high - low
        uses = part.histories.uses(sequence.name, (low[train], high[train]))
        events = events.append_column(length(sequence.name), pa.array(lengths))
        events = events.append_column(used(sequence.name), pa.array(uses))
        for field in sequence.fields:
            if job.plan.fields[field.name].table == "age":
                sums = part.age_sums(field, sequence.name, rows[train], (low[train], high[train]))
                for name, values in zip((sum_of, squares_of), sums, strict=True):
                    events = events.append_column(name(field.name), pa.array(values))
    if job.rules.negatives is not None:
        events = events.append_column(NEGATIVES, _negatives(part, rows, job))
    return events


def _negatives(part: "Part", rows: np.ndarray, job: Job) -> pa.Array:
    """A list of item codes for each event; empty for those that are no rows."""
    rule = job.rules.negatives
    upto = np.stack([job.pool[f"upto_{split}"].to_numpy() for split in range(len(SPLITS))])
    # Codes in the order of users, which is that of the events.
    drawn = sample_negatives(rule, upto, part.users, part.user, part.item, rows, part.split[rows])
    lengths = np.zeros(len(part.user), np.int64)
    lengths[rows] = rule.per_positive
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(drawn.reshape(-1)))


class Part:
    """A part's events, sorted.

    Attributes:
      events: the table.
      users: ids of the users, in the order of their events.
      user: int [events], places in ``users``.
      time, label, split: of the events.
      histories: spans of all sequences.
    """

    def __init__(self, events: pa.Table, job: Job):
        self.events, self._job = events, job
        coded = events[USER].combine_chunks().dictionary_encode()
        self.user, self.users = coded.indices.to_numpy(), coded.dictionary.to_pylist()
        self.time = events[TIME].to_numpy()
        self.label, self.split = events[LABEL].to_numpy(), events[SPLIT].to_numpy()
        rules, conditions = job.rules.sequences, distinct_conditions(job.rules)
        met = [
            events[f"__in_{number}"].to_numpy(zero_copy_only=False)
            for number in range(len(conditions))
        ]
        self.histories = Histories(
            self.user,
            self.time,
            {name: met[conditions.index(rule.where)] for name, rule in rules.items()},
            {name: rule.before for name, rule in rules.items()},
            {sequence.name: sequence.max_length for sequence in job.schema.sequences},
            job.rules.exact_order,
        )
        self._columns: dict[str, _Column] = {}

    @cached_property
    def item(self) -> np.ndarray:
        """Codes of the events' items in the pool."""
        known = self._job.pool[ITEM].combine_chunks()
        return pc.index_in(self.events[ITEM].combine_chunks(), value_set=known).to_numpy()

    def ages(self, source: Source, rows: np.ndarray, history: np.ndarray, splits: np.ndarray):
        """Time between each history event and its row, in the source's unit; float32."""
        moments = np.repeat(self.time[rows], np.diff(splits))
        return ((moments - self.time[history]) / AGES[source.column]).astype(np.float32)

    def age_sums(self, field: Feature, sequence: str, rows, span) -> tuple[np.ndarray, np.ndarray]:
        """(sums, sums of squares) of the transformed ages of each event that is in ``rows``."""
        source, sums = self._job.plan.fields[field.name], np.zeros((2, len(self.user)))
        for piece in self.pieces(len(rows)):
            history, splits = self.histories.events(sequence, (span[0][piece], span[1][piece]))
            ages = field.transformed(self.ages(source, rows[piece], history, splits).astype(float))
            owner = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
            for total, values in zip(sums, (ages, ages**2), strict=True):
                total[rows[piece]] = np.bincount(owner, values, len(splits) - 1)
        return sums[0], sums[1]

    def pieces(self, count: int) -> Iterator[slice]:
        """Splits ``count`` rows into pieces whose histories fit into memory."""
        most = sum(sequence.max_length for sequence in self._job.schema.sequences)
        step = max(1, _EVENTS // most)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def column(self, source: Source) -> "_Column":
        """A source's column."""
        if source.name not in self._columns:
            self._columns[source.name] = _Column(self.events[source.name], source)
        return self._columns[source.name]

    def rows_of(self, split: int) -> np.ndarray:
        """The events that are rows of a split, in order of time."""
        rows = np.flatnonzero(self.split == split)
        return rows[np.argsort(self.time[rows], kind="stable")]

    def records(self, rows: np.ndarray) -> pa.LargeBinaryArray:
        """Serialized tf.Examples of the events ``rows``, each followed by its negatives."""
        job, columns, repeats = self._job, {}, self._job.per_event
        schema = job.schema
        shared = None if repeats == 1 else np.repeat(np.arange(len(rows)), repeats)
        label = np.zeros((len(rows), repeats), np.float32)
        label[:, 0] = self.label[rows]
        columns[schema.label] = WireColumn(wire_values(label.reshape(-1)))
        if schema.group not in {feature.name for feature in schema.features}:
            columns[schema.group] = self.column(job.plan.features[schema.group]).wire(
                rows, None, shared
            )
        if schema.weight is not None:  # Negatives have that of their event.
            weights = self.column(job.plan.features[schema.weight])
            columns[schema.weight] = weights.wire(rows, None, shared)
        items = None if job.pool is None else self._items(rows)
        for feature in schema.features:
            source = job.plan.features[feature.name]
            if items is not None and feature.side == "item":
                columns[feature.name] = _Column(job.pool[source.name], source).wire(items, feature)
            else:
                columns[feature.name] = self.column(source).wire(rows, feature, shared)
        spans = self.histories.spans(rows)
        for sequence in schema.sequences:
            history, splits = self.histories.events(sequence.name, spans[sequence.name])
            for field in sequence.fields:
                source = job.plan.fields[field.name]
                if source.table == "age":
                    ages = wire_values(self.ages(source, rows, history, splits))
                    columns[field.name] = WireColumn(ages, None, splits, shared)
                else:
                    columns |= self.column(source).field(history, splits, field, shared)
        return serialize_rows(columns)

    def _items(self, rows: np.ndarray) -> np.ndarray:
        """Codes of the items of events and of their negatives, in the order of rows."""
        lists = self.events[NEGATIVES].combine_chunks()
        drawn = lists.take(pa.array(rows)).flatten().to_numpy().reshape(len(rows), -1)
        return np.concatenate([self.item[rows][:, None], drawn], axis=1).reshape(-1)


class _Column:
    """A column as codes of its distinct values, or as numbers; lists as spans."""

    def __init__(self, column: pa.ChunkedArray, source: Source):
        array = pa.chunked_array(column.chunks, column.type).combine_chunks()
        self._splits = None
        if source.many:
            self._splits = array.offsets.to_numpy().astype(np.int64)
            array = array.values
        array = array.cast(_ARROW[source.type])
        self._numbers = self._codes = None
        if source.type == "float32":
            self._numbers = array.fill_null(np.nan).to_numpy()
        else:
            # The last of the values is the padding.
            coded = array.dictionary_encode()
            padding = pa.array([PADDING[source.type]], array.type)
            self._wire = wire_values(pa.concat_arrays([coded.dictionary, padding]))
            self._codes = coded.indices.to_numpy()

    def wire(
        self, entries: np.ndarray, feature: Feature | None, rows: np.ndarray | None = None
    ) -> WireColumn:
        """A global feature, or the group or weight (``feature`` None), of ``entries``."""
        if self._numbers is not None:
            numbers = self._numbers[entries]
            wire = wire_values(numbers) if feature is None else _filled(numbers, feature)
            return WireColumn(wire, None, None, rows)
        if self._splits is None:
            return WireColumn(self._wire, self._codes[entries], None, rows)
        positions, splits = flat_spans(self._splits[entries], self._splits[entries + 1])
        return WireColumn(self._wire, self._codes[positions], splits, rows)

    def field(
        self, history: np.ndarray, splits: np.ndarray, field: Feature, rows: np.ndarray | None
    ) -> dict[str, WireColumn]:
        """A field of a sequence: a value per event; lists one after the other, and their lengths."""
        if self._numbers is not None:
            numbers = _filled(self._numbers[history], field)
            return {field.name: WireColumn(numbers, None, splits, rows)}
        if self._splits is None:
            return {field.name: WireColumn(self._wire, self._codes[history], splits, rows)}
        positions, lists = flat_spans(self._splits[history], self._splits[history + 1])
        counts = wire_values(np.diff(lists))
        return {
            field.name: WireColumn(self._wire, self._codes[positions], lists[splits], rows),
            counts_name(field.name): WireColumn(counts, None, splits, rows),
        }


def _filled(numbers: np.ndarray, feature: Feature) -> Wire:
    return wire_values(np.where(np.isnan(numbers), np.float32(feature.default), numbers))
