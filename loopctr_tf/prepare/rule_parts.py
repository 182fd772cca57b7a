"""What the section `build` is made of: conditions, sequences, tables, negatives and splits."""

import datetime
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.features.values import id_text
from loopctr_tf.settings import Number, Settings, listing

AGES = {"hours_before": 3_600_000_000, "days_before": 86_400_000_000}
"""Sources of a field that are ages, with their unit in microseconds."""


def _texts(values: Any) -> tuple[str, ...]:
    """Values in the spelling that columns are read in: 5.0 is 5, True is true."""
    values = listing(values, "this")
    for value in values:
        if not isinstance(value, (str, int, float)):
            raise UsageError(f"one is {value!r}; give text, numbers, true or false")
    return tuple(id_text(value) or "" for value in values)


def plain(value: Any) -> Any:
    """Values that JSON can represent; YAML dates become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


Column = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


def _moment(value: Any) -> str | int | float:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"it is {value!r}; give a date such as 2024-01-31, or a number")
    return value


Moment = Annotated[str | int | float, BeforeValidator(_moment)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Rule(Settings):
    """Base class of the section's parts."""

    what: ClassVar[str] = "key"


class Condition(Rule):
    """Events whose ``column`` is one of ``values`` (compared as text), or a number >= ``at_least``."""

    column: Column
    values: Annotated[Texts, Field(min_length=1)] | None = None
    at_least: Number | None = None

    @model_validator(mode="after")
    def _check(self):
        if (self.values is None) == (self.at_least is None):
            raise UsageError("give either values or at_least, and not both")
        return self


class SequenceRule(Rule):
    """Which events are in a sequence, and the sources of its fields."""

    fields: dict[str, Column]
    """The source of each field."""
    where: Condition | None = None
    """Which events; null means all."""
    before: str | None = None
    """Name of another sequence; this one has the events before it."""


class TableRule(Rule):
    """Which values a vocabulary contains."""

    min_count: Positive = 1
    """Values that occur at least this often."""
    max_size: Positive | None = None
    """At most this many values, the most common."""


class NegativeRule(Rule):
    """Sampled negatives for every event."""

    per_positive: Positive
    """How many for each event."""
    by: Literal["popularity", "uniform"] = "popularity"
    """How items are drawn."""
    seed: Count = 0
    """Seed of the draws."""


class ColumnRule(Rule):
    """How the cells of a column are read."""

    separator: Column
    """Text between the values of a list in one cell, such as "|"."""


class ImpressionRule(Rule):
    """Rows that list the items shown together, each of which becomes an event."""

    shown: Column
    """Column with the list of items."""
    clicked: Column | None = None
    """Column with the list of those that were clicked."""
    click_suffix: Column | None = None
    """What clicked items end with, instead of ``clicked``."""
    other_suffix: str = ""
    """What the other items end with."""

    @model_validator(mode="after")
    def _check(self):
        if (self.clicked is None) == (self.click_suffix is None):
            raise UsageError("give either clicked or click_suffix, and not both")
        if self.clicked == self.shown:
            raise UsageError(f"shown and clicked are both {self.shown!r}; name two columns")
        if self.click_suffix is None and self.other_suffix:
            raise UsageError(f"other_suffix is {self.other_suffix!r}; give click_suffix too")
        if self.click_suffix is not None and self.click_suffix.endswith(self.other_suffix or "\n"):
            raise UsageError(
                f"click_suffix {self.click_suffix!r} ends with other_suffix; clicks must be known by it"
            )
        return self

    @property
    def columns(self) -> list[str]:
        """The columns of lists."""
        return [self.shown] + ([] if self.clicked is None else [self.clicked])


class NumericRule(Rule):
    """How a number is fitted."""

    fixed: bool = False
    """Whether to keep the schema's mean, std and default."""


class TimeSplit(Rule):
    """By time: shares of the rows, the most recent last, or the times at which splits begin."""

    by: Literal["time"] = "time"
    valid: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Share of the rows, e.g. 0.1."""
    test: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Share of the rows, e.g. 0.1."""
    valid_from: Moment | None = None
    """ISO date, or a number in time_unit."""
    test_from: Moment | None = None
    """ISO date, or a number in time_unit."""

    @model_validator(mode="after")
    def _check(self):
        shares, moments = (self.valid, self.test), (self.valid_from, self.test_from)
        given = [pair for pair in (shares, moments) if pair != (None, None)]
        if len(given) != 1 or None in given[0]:
            raise UsageError("give valid and test, or else valid_from and test_from")
        if given[0] is shares and sum(shares) >= 1:
            raise UsageError(f"valid and test sum to {sum(shares):g}; leave a share to train")
        return self


class GivenTimeSplit(TimeSplit):
    """By the time in a column of the rows."""

    column: Column


class LastSplit(Rule):
    """The last ``test`` rows of every user, and the ``valid`` rows before them."""

    by: Literal["last"] = "last"
    valid: Count
    test: Count


class ColumnSplit(Rule):
    """By the text in a column."""

    by: Literal["column"] = "column"
    column: Column
    train: Texts
    valid: Texts = ()
    test: Texts = ()

    @cached_property
    def values(self) -> dict[str, str]:
        """Text -> split."""
        splits: dict[str, str] = {}
        for split in ("train", "valid", "test"):
            for text in getattr(self, split):
                if text in splits:
                    raise UsageError(
                        f"build: split: {text!r} is in {splits[text]} and {split}; keep one"
                    )
                splits[text] = split
        return splits
