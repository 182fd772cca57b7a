"""Proposes a schema.yaml with its section `build` for a table of events; comments explain each guess.

Guesses are based on the first rows and on names such as ``user_id``.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.feature_guesses import FeatureGuess, guess_features
from loopctr_tf.prepare.guesses import guess_roles
from loopctr_tf.prepare.profiles import SAMPLE_ROWS, Sample, take_sample
from loopctr_tf.prepare.rules import read_rules

HISTORY, LENGTH, LONGER = "history", 50, 500
"""Name of the proposed sequence, its length, and the length of the one before it."""
_WIDTH = 100
_Lines = list[tuple[str, str]]
"""Lines of YAML: (text, comment), either may be empty."""


def propose_schema(
    events: str | Path | Sequence[str | Path],
    items: str | Path | Sequence[str | Path] | None = None,
    rows: int = SAMPLE_ROWS,
) -> str:
    """The text of a schema.yaml that ``loopctr prepare`` takes.

    Args:
      events: Parquet or CSV files, or folders of them.
      items: a table of items, joined by the column of the events that is guessed to be the item.
      rows: how many rows of each table are read.

    Raises:
      UsageError: for files that cannot be read or have no rows, or events without a column that looks
        like the user, the item or the time.
    """
    sample = take_sample(events, rows)
    if not sample.rows:
        raise UsageError("no row of the events can be read; name other files")
    of_items = None if items is None else take_sample(items, rows)
    text = _Proposal(sample, of_items).text()
    values = yaml.safe_load(text)
    build = values.pop("build")
    read_rules(build, Schema.from_dict(values))  # The proposal must be valid.
    return text


class _Proposal:
    def __init__(self, events: Sample, items: Sample | None):
        self._events, self._roles = events, guess_roles(events)
        roles = self._roles
        if items is not None and roles.item.column not in items.profiles:
            raise UsageError(
                f"the items have no column {roles.item.column!r}, the item column of the events; their "
                f"columns are {', '.join(items.profiles)}; rename one"
            )
        self._guesses = guess_features(events, items, roles)
        names = {name.lower() for name in events.profiles}
        if roles.label is not None and len(roles.label) == 1:
            self._label = roles.label["column"]
        else:
            self._label = next(n for n in ("label", "positive", "target_label") if n not in names)
        self._together = self._equal([roles.user.column, roles.time.column])
        read = {feature.name for feature in self._guesses.features} & set(events.columns)
        self._twice = self._equal([*roles.taken(), *read])
        counts = np.bincount(events.codes(roles.user.column) + 1)[1:]
        self._busy = int(np.quantile(counts[counts > 0], 0.9)) if counts.any() else 0

    def _equal(self, columns: Sequence[str]) -> int:
        """Number of sampled rows that repeat an earlier one in these columns."""
        codes = np.stack([self._events.codes(column) for column in columns])
        return self._events.rows - np.unique(codes, axis=1).shape[1]

    def text(self) -> str:
        """The whole file."""
        parts = (self._head(), self._tables(), self._features(), self._sequences(), self._build())
        return "\n".join("".join(_rendered(*line) for line in part) for part in parts)

    def _head(self) -> _Lines:
        events, roles = self._events, self._roles
        read = f"all {events.rows:,}" if events.whole else f"the first {events.rows:,}"
        lines: _Lines = [
            ("", f"Proposed by `loopctr schema init` from {read} rows of the events."),
            (
                "",
                "Comments explain guesses: correct what is wrong, then delete them. `loopctr prepare",
            ),
            ("", "--help-build` describes the section `build`."),
        ]
        for reason, count in events.bad.items():
            lines.append(("", f"NOTE: {count:,} rows could not be read ({reason})."))
        if roles.label is None:
            why = f"{roles.label_why}: all events are positive, negatives are sampled (build: negatives)"
        elif len(roles.label) == 1:
            why = roles.label_why
        else:
            why = f"made from {roles.label['column']}, see build: label"
        return [
            *lines,
            ("version: 1", ""),
            (f"label: {_scalar(self._label)}", why),
            (
                f"group: {_scalar(roles.user.column)}",
                f"groups of GAUC: the user, {roles.user.why}. Not a feature: user ids add little to "
                "histories, and new users have none",
            ),
        ]

    def _tables(self) -> _Lines:
        lines: _Lines = [("tables:", "embedding tables")]
        for table in self._guesses.tables.values():
            rule: dict[str, Any] = {"dtype": table.dtype} if table.dtype != "string" else {}
            rule |= {"vocabulary": []} if table.buckets is None else {"hash_buckets": table.buckets}
            lines.append((f"  {_scalar(table.name)}: {_flow(rule)}", table.why))
        return lines

    def _features(self) -> _Lines:
        lines: _Lines = [
            (
                "features:",
                "side: user and context have one value per request, item and cross one per candidate",
            )
        ]
        for feature in self._guesses.features:
            lines.append(
                (f"  - {_flow(_described(feature, feature.name, feature.side))}", feature.why)
            )
        if self._guesses.left_out:
            lines.append(("", "Left out:"))
        for guess in self._guesses.left_out:
            lines.append(("", f"- {guess.column}: {guess.why}"))
        return lines

    def _in_history(self) -> list[FeatureGuess]:
        """The item and up to three of its categorical features."""
        of_item = [f for f in self._guesses.features if f.side == "item" and f.table is not None]
        return of_item[:4]

    def _sequences(self) -> _Lines:
        lines: _Lines = [("sequences:", "")]
        for name, length, compress in self._lengths():
            lines += [
                (f"  - name: {name}", ""),
                (f"    max_length: {length}", "most recent events"),
            ]
            if compress:
                lines.append(("    compress: true", "learned queries attend to it"))
            lines.append(("    fields:", ""))
            for feature in self._in_history():
                described = _described(feature, f"{name}_{feature.name}", None)
                lines.append((f"      - {_flow(described)}", ""))
            if not self._roles.only_order:
                gap = {"name": f"{name}_hours", "type": "numeric", "transform": "log1p"}
                lines.append((f"      - {_flow(gap)}", "time before the row"))
        return lines

    def _lengths(self) -> list[tuple[str, int, bool]]:
        longer = [(f"older_{HISTORY}", LONGER, True)] if self._busy > LENGTH else []
        return [(HISTORY, LENGTH, False), *longer]

    def _build(self) -> _Lines:
        roles, sample = self._roles, self._events
        lines: _Lines = [
            ("build:", ""),
            (f"  user: {_scalar(roles.user.column)}", roles.user.why + self._missing(roles.user)),
            (f"  item: {_scalar(roles.item.column)}", roles.item.why + self._missing(roles.item)),
            (f"  time: {_scalar(roles.time.column)}", roles.time.why + self._missing(roles.time)),
        ]
        if roles.unit != "s":
            lines.append((f"  time_unit: {roles.unit}", "unit of the numbers"))
        lines.append(
            (
                "  exact_order: false",
                f"{self._together / sample.rows:.1%} of the events share user and time with another; "
                "true: they happened in the order of the file, and are in each other's histories",
            )
        )
        if self._twice:
            why = f"{self._twice:,} events of the sample repeat another in all columns read; use reject "
            why += "if these are errors"
            lines.append(("  duplicates: keep", why))
        if roles.label is not None and len(roles.label) > 1:
            lines.append((f"  label: {_flow(roles.label)}", roles.label_why))
        separators = {
            f.name: {"separator": f.separator} for f in self._guesses.features if f.separator
        }
        if separators:
            lines.append((f"  columns: {_flow(separators)}", "lists in one cell"))
        counted = {
            table.name: {"min_count": table.min_count}
            for table in self._guesses.tables.values()
            if table.min_count > 1
        }
        if counted:
            lines.append((f"  tables: {_flow(counted)}", "rarer values count as unknown"))
        return [*lines, *self._histories(), *self._negatives(), *self._split()]

    def _histories(self) -> _Lines:
        only_positives = self._roles.label is not None
        what = "the user's earlier positives" if only_positives else "the user's earlier events"
        lines: _Lines = [
            ("  sequences:", f"{what}; 90% of the users have up to {self._busy:,} events")
        ]
        for name, _, compress in self._lengths():
            lines.append((f"    {name}:", ""))
            if compress:
                lines.append((f"      before: {HISTORY}", "the events before those"))
            elif only_positives:
                where = {"column": self._label, "values": [1]}
                lines.append((f"      where: {_flow(where)}", "without it: all events"))
            fields = {f"{name}_{feature.name}": feature.name for feature in self._in_history()}
            if not self._roles.only_order:
                fields[f"{name}_hours"] = "hours_before"
            lines.append((f"      fields: {_flow(fields)}", ""))
        return lines

    def _negatives(self) -> _Lines:
        if self._roles.label is not None:
            return []
        rule = {"per_positive": 4, "by": "popularity", "seed": 1}
        return [
            (f"  negatives: {_flow(rule)}", "items that the user has no event with; or by: uniform")
        ]

    def _split(self) -> _Lines:
        split = self._roles.split
        if split is not None and split["valid"]:
            return [(f"  split: {_flow({'by': 'column', **split})}", "by its name and values")]
        if self._roles.only_order:
            why = "the last rows of each user: the positions of two users cannot be compared"
            return [(f"  split: {_flow({'by': 'last', 'valid': 1, 'test': 1})}", why)]
        why = "shares of the rows, the most recent last"
        return [(f"  split: {_flow({'by': 'time', 'valid': 0.1, 'test': 0.1})}", why)]

    def _missing(self, guess) -> str:
        missing = self._events.profiles[guess.column].missing
        note = f"; missing in {missing:,} rows: use --skip-bad, or fill them in"
        return note if missing else ""


def _described(feature: FeatureGuess, name: str, side: str | None) -> dict[str, Any]:
    values = {
        "name": name,
        "type": feature.type,
        "side": side,
        "table": feature.table,
        "max_values": feature.max_values,
        "transform": feature.transform,
    }
    return {key: value for key, value in values.items() if value is not None}


def _rendered(text: str, comment: str) -> str:
    """A line followed by its comment, or the comment above it if both are too long for one line."""
    if not comment:
        return f"{text}\n"
    if text and len(text) + len(comment) + 4 <= _WIDTH:
        return f"{text}  # {comment}\n"
    indent = re.match(" *", text)[0]
    lines = textwrap.fill(
        comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
    return f"{lines}\n" + (f"{text}\n" if text else "")


def _flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A plain word if YAML reads it as text, else a JSON value, which is valid YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)
    if plain and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
