"""Proposes a schema.yaml with its section `build` for a table of events; comments explain each guess.

Guesses are based on the first rows and on names such as ``user_id``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.column_names import can_be_input, input_name
from loopctr_tf.prepare.feature_guesses import FeatureGuess, guess_features
from loopctr_tf.prepare.files import TableFiles, TextOptions, quoted
from loopctr_tf.prepare.guesses import condition_sql, guess_roles
from loopctr_tf.prepare.rules import read_rules
from loopctr_tf.prepare.sample import SAMPLE_ROWS, Sample, take_sample
from loopctr_tf.prepare.yaml_lines import Lines, flow, rendered, scalar

LENGTH, LONGER, LONGEST = 50, 500, 20
"""Length of the proposed sequence, of the one before it, and of a list in an event of them."""
_NAMES = ("history", "past", "earlier", *(f"history_{number}" for number in range(2, 100)))


def propose_schema(
    events: str | Path | Sequence[str | Path],
    items: str | Path | Sequence[str | Path] | None = None,
    rows: int = SAMPLE_ROWS,
    options: TextOptions | None = None,
) -> str:
    """The text of a schema.yaml that ``loopctr prepare`` takes.

    Args:
      events: files of one format, or folders of them.
      items: a table of items, joined by the column of the events that is guessed to be the item.
      rows: how many rows of each table are read.
      options: how text files of events are read; by default as their first line suggests.

    Raises:
      UsageError: for files that cannot be read or have no rows, or events without a column that looks
        like the user, the item or the time.
    """
    sample = take_sample(TableFiles(events, "EVENTS", options or TextOptions()), rows)
    if not sample.rows:
        raise UsageError("no row of the events can be read; name other files")
    of_items = None if items is None else take_sample(TableFiles(items, "--items"), rows)
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
        self._label, self._label_rule = self._named_label()
        self._name = self._sequence_name()
        self._together = self._equal([roles.user.column, roles.time.column])
        read = {feature.column for feature in self._guesses.features} & set(events.profiles)
        self._twice = self._equal([*roles.taken(), *read])
        user = quoted(roles.user.column)
        where = "TRUE" if roles.label is None else condition_sql(roles.label)
        (busy,) = events.one(
            "SELECT quantile_disc(events, 0.9) FROM (SELECT count(*) AS events FROM sample "
            f"WHERE {user} IS NOT NULL AND ({where}) GROUP BY {user})"
        )
        self._busy = busy or 0

    def _named_label(self) -> tuple[str, dict | None]:
        """The schema's label, and the rule that makes it unless it is a column of 0 and 1."""
        rule, names = self._roles.label, {name.lower() for name in self._events.profiles}
        names |= {feature.name.lower() for feature in self._guesses.features}
        if rule is not None and len(rule) == 1:
            column = rule["column"]
            if can_be_input(column):
                return column, None
            values = [v for v in self._events.profiles[column].commonest if v in ("1", "true")]
            return input_name(column, names), {"column": column, "values": values}
        label = next(n for n in ("label", "positive", "target_label") if n not in names)
        return label, rule

    def _sequence_name(self) -> str:
        """A name whose inputs have no names that others have."""
        taken = {feature.name.lower() for feature in self._guesses.features} | {self._label.lower()}

        def made(name: str) -> set[str]:
            ends = ["length", "hours", *(f.name.lower() for f in self._in_history())]
            return {f"{start}{name}_{end}" for start in ("", "older_") for end in ends}

        return next(name for name in _NAMES if not made(name) & taken)

    def _equal(self, columns: Sequence[str]) -> int:
        """Number of sampled rows that repeat an earlier one in these columns."""
        row = ", ".join(f"{quoted(name)} := {quoted(name)}" for name in dict.fromkeys(columns))
        (different,) = self._events.one(f"SELECT count(DISTINCT struct_pack({row})) FROM sample")
        return self._events.rows - different

    def text(self) -> str:
        """The whole file."""
        parts = (self._head(), self._tables(), self._features(), self._sequences(), self._build())
        return "\n".join("".join(rendered(*line) for line in part) for part in parts)

    def _head(self) -> Lines:
        events, roles = self._events, self._roles
        read = "all" if events.whole else "the first"
        rows = f"{read} {events.rows:,} rows of the events"
        if not events.whole and events.files > 1:
            rows = f"{events.rows:,} rows of the events, the first of each file"
        lines: Lines = [
            ("", f"Proposed by `loopctr schema init` from {rows}."),
            (
                "",
                "Comments explain guesses: correct what is wrong, then delete them. `loopctr prepare",
            ),
            ("", "--help-build` describes the section `build`."),
        ]
        lines += [("", f"NOTE: {note}.") for note in events.notes]
        if roles.label is None:
            why = f"{roles.label_why}: all events are positive, negatives are sampled (build: negatives)"
        elif self._label_rule is None:
            why = roles.label_why
        else:
            why = f"made from {roles.label['column']}, see build: label"
        return [
            *lines,
            ("version: 1", ""),
            (f"label: {scalar(self._label)}", why),
            (
                f"group: {scalar(roles.user.column)}",
                f"groups of GAUC: the user, {roles.user.why}. Not a feature: user ids add little to "
                "histories, and new users have none",
            ),
        ]

    def _tables(self) -> Lines:
        lines: Lines = [("tables:", "embedding tables")]
        for table in self._guesses.tables.values():
            rule: dict[str, Any] = {"dtype": table.dtype} if table.dtype != "string" else {}
            rule |= {"vocabulary": []} if table.buckets is None else {"hash_buckets": table.buckets}
            lines.append((f"  {scalar(table.name)}: {flow(rule)}", table.why))
        return lines

    def _features(self) -> Lines:
        lines: Lines = [
            (
                "features:",
                "side: user and context have one value per request, item and cross one per candidate",
            )
        ]
        for feature in self._guesses.features:
            lines.append((f"  - {flow(_described(feature))}", feature.why))
        if not self._guesses.judged and self._roles.label is not None:
            note = (
                "NOTE: too few labels in the sample to see which columns are known only afterwards"
            )
            lines.append(("", note))
        if self._guesses.left_out:
            lines.append(("", "Left out:"))
        for guess in self._guesses.left_out:
            lines.append(("", f"- {guess.column}: {guess.why}"))
        return lines

    def _in_history(self) -> list[FeatureGuess]:
        """The item and up to three of its categorical features, without long lists."""
        of_item = [
            f
            for f in self._guesses.features
            if f.side == "item" and f.table is not None and (f.max_values or 1) <= LONGEST
        ]
        return of_item[:4]

    def _sequences(self) -> Lines:
        lines: Lines = [("sequences:", "")]
        for name, length, compress in self._lengths():
            lines += [
                (f"  - name: {name}", ""),
                (f"    max_length: {length}", "most recent events"),
            ]
            if compress:
                lines.append(("    compress: true", "learned queries attend to it"))
            lines.append(("    fields:", ""))
            for feature in self._in_history():
                described = _described(feature, f"{name}_{feature.name}")
                lines.append((f"      - {flow(described)}", ""))
            if not self._roles.only_order:
                gap = {"name": f"{name}_hours", "type": "numeric", "transform": "log1p"}
                lines.append((f"      - {flow(gap)}", "time before the row"))
        return lines

    def _lengths(self) -> list[tuple[str, int, bool]]:
        longer = [(f"older_{self._name}", LONGER, True)] if self._busy > LENGTH else []
        return [(self._name, LENGTH, False), *longer]

    def _build(self) -> Lines:
        roles, sample = self._roles, self._events
        lines: Lines = [
            ("build:", ""),
            (f"  user: {scalar(roles.user.column)}", roles.user.why + self._missing(roles.user)),
            (f"  item: {scalar(roles.item.column)}", roles.item.why + self._missing(roles.item)),
            (f"  time: {scalar(roles.time.column)}", roles.time.why + self._missing(roles.time)),
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
        if self._label_rule is not None:
            lines.append((f"  label: {flow(self._label_rule)}", roles.label_why))
        separators = {
            f.column: {"separator": f.separator} for f in self._guesses.features if f.separator
        }
        if separators:
            lines.append((f"  columns: {flow(separators)}", "lists in one cell"))
        counted = {
            table.name: {"min_count": table.min_count}
            for table in self._guesses.tables.values()
            if table.min_count > 1
        }
        if counted:
            lines.append((f"  tables: {flow(counted)}", "rarer values count as unknown"))
        return [*lines, *self._histories(), *self._negatives(), *self._split()]

    def _histories(self) -> Lines:
        only_positives = self._roles.label is not None
        what = "the user's earlier positives" if only_positives else "the user's earlier events"
        lines: Lines = [
            (
                "  sequences:",
                f"{what}; 90% of the users have up to {self._busy:,} of them in the sample",
            )
        ]
        for name, _, compress in self._lengths():
            lines.append((f"    {name}:", ""))
            if compress:
                lines.append((f"      before: {self._name}", "the events before those"))
            elif only_positives:
                where = {"column": self._label, "values": [1]}
                lines.append((f"      where: {flow(where)}", "without it: all events"))
            fields = {f"{name}_{feature.name}": feature.column for feature in self._in_history()}
            if not self._roles.only_order:
                fields[f"{name}_hours"] = "hours_before"
            lines.append((f"      fields: {flow(fields)}", ""))
        return lines

    def _negatives(self) -> Lines:
        if self._roles.label is not None:
            return []
        rule = {"per_positive": 4, "by": "popularity", "seed": 1}
        return [
            (f"  negatives: {flow(rule)}", "items that the user has no event with; or by: uniform")
        ]

    def _split(self) -> Lines:
        split = self._roles.split
        if split is not None and split["valid"]:
            return [(f"  split: {flow({'by': 'column', **split})}", "by its name and values")]
        if self._roles.only_order:
            why = "the last rows of each user: the positions of two users cannot be compared"
            return [(f"  split: {flow({'by': 'last', 'valid': 1, 'test': 1})}", why)]
        why = "shares of the rows, the most recent last"
        return [(f"  split: {flow({'by': 'time', 'valid': 0.1, 'test': 0.1})}", why)]

    def _missing(self, guess) -> str:
        missing = self._events.profiles[guess.column].missing
        note = f"; missing in {missing:,} rows: use --skip-bad, or fill them in"
        return note if missing else ""


def _described(feature: FeatureGuess, field: str | None = None) -> dict[str, Any]:
    """A feature's keys; those of the field of a sequence, which is called ``field``."""
    values = {
        "name": field or feature.name,
        "column": None if field or feature.column == feature.name else feature.column,
        "type": feature.type,
        "side": None if field else feature.side,
        "table": feature.table,
        "max_values": feature.max_values,
        "truncate": "first" if feature.max_values else None,
        "transform": feature.transform,
    }
    return {key: value for key, value in values.items() if value is not None}
