"""The `build` section of schema.yaml: how events become rows, histories, splits and vocabularies.

Everything that it may hold::

    build:
      user: user_id            # columns of the events
      item: item_id            # needed for negatives and for a table of items
      time: timestamp          # numbers, or ISO dates
      time_unit: s             # s, ms, us or ns, of numbers
      exact_order: false       # true: events of one time happened in the order of the files
      duplicates: reject       # events equal in all that is read; or keep
      label: {column: rating, at_least: 4}   # or {column: event, values: [click]}; without it the
                               # schema's label column holds 0 and 1
      rows: {column: event, values: [impression, click]}   # which events become rows; without it all
      columns: {genres: {separator: "|"}}    # a list in one cell
      tables: {item: {min_count: 5, max_size: 100000}}     # of tables with `vocabulary: []`
      sequences:               # every sequence of the schema, and a source for each of its fields
        clicks: {where: {column: label, values: [1]}, fields: {clicks_item: item_id}}
        older_clicks: {before: clicks, fields: {older_clicks_item: item_id}}
      negatives: {per_positive: 4, by: popularity, seed: 1}   # or by: uniform; every event is a 1 then
      split: {by: time, valid: 0.1, test: 0.1}             # shares of the rows, the latest last; or
                               # {by: time, valid_from: 2024-05-01, test_from: 2024-05-08}
                               # {by: last, valid: 1, test: 1}      the last rows of each user
                               # {by: column, column: part, train: [a], valid: [b], test: [c]}
      numeric: {price: {fixed: true}}        # keeps the schema's mean, std and default

A feature takes the column of its own name, of the events or else of the item or user table. A field
takes the source that is named: a column of the events, or else of the item table; the schema's label; or
``hours_before`` / ``days_before``, how long before the row the event was. ``before: clicks`` are the
events before those that ``clicks`` keeps, of the same kind unless it has a ``where`` of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TIME_UNITS = ("s", "ms", "us", "ns")
AGES = {"hours_before": 3_600_000_000, "days_before": 86_400_000_000}
"""Sources of a field that are no columns, with their unit in microseconds."""


@dataclass(frozen=True)
class Condition:
    """Events whose ``column`` is one of ``values`` (compared as text), or a number >= ``at_least``."""

    column: str
    values: tuple[str, ...] | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class SequenceRule:
    """What goes into a sequence.

    Attributes:
      fields: the source of each field.
      where: which events; None takes all.
      before: name of another sequence; the events are those before the ones that it keeps.
    """

    fields: Mapping[str, str]
    where: Condition | None = None
    before: str | None = None


@dataclass(frozen=True)
class TableRule:
    """Which values a vocabulary keeps: seen ``min_count`` times, at most the ``max_size`` commonest."""

    min_count: int = 1
    max_size: int | None = None


@dataclass(frozen=True)
class NegativeRule:
    """Sampled rows of label 0 for every event, ``by`` "popularity" or "uniform"."""

    per_positive: int
    by: str = "popularity"
    seed: int = 0


@dataclass(frozen=True)
class TimeSplit:
    """By time: shares of the rows, the most recent last, or the moments at which splits begin.

    A moment is ISO text, or a number in ``time_unit``; shares are None then.
    """

    valid: float | None = None
    test: float | None = None
    valid_from: str | float | None = None
    test_from: str | float | None = None


@dataclass(frozen=True)
class LastSplit:
    """The last ``test`` rows of every user, and the ``valid`` rows before them."""

    valid: int
    test: int


@dataclass(frozen=True)
class ColumnSplit:
    """By the text in ``column``: ``values`` leads from it to a split."""

    column: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Rules:
    """The whole section; see the module's text. ``as_written`` is what stands in the file."""

    user: str
    time: str
    split: TimeSplit | LastSplit | ColumnSplit
    sequences: Mapping[str, SequenceRule]
    item: str | None = None
    time_unit: str = "s"
    exact_order: bool = False
    duplicates: str = "reject"
    label: Condition | None = None
    rows: Condition | None = None
    separators: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, TableRule] = field(default_factory=dict)
    negatives: NegativeRule | None = None
    fixed: frozenset[str] = frozenset()
    as_written: Mapping[str, Any] = field(default_factory=dict)
