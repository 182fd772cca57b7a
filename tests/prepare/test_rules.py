"""What the section `build` may say, and one line for each mistake in it."""

import copy
import datetime

import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.rule_parts import (
    ColumnSplit,
    Condition,
    LastSplit,
    NegativeRule,
    SequenceRule,
    TableRule,
    TimeSplit,
)
from loopctr_tf.prepare.rules import load_rules, read_rules
from tests.prepare.logs import negatives_dict, schema_dict

PLAIN = schema_dict()


def rules(values=PLAIN, **build):
    """The rules of a schema, some entries of which are others; None leaves one out."""
    values = copy.deepcopy(values)
    section = {**values.pop("build"), **build}
    section = {name: rule for name, rule in section.items() if rule is not None}
    return read_rules(section, Schema.from_dict(values))


def test_everything_is_read():
    found = rules()
    assert (found.user, found.item, found.time, found.time_unit) == (
        "user_id",
        "item_id",
        "time",
        "s",
    )
    assert (found.exact_order, found.duplicates, found.negatives) == (False, "reject", None)
    assert found.label == Condition(column="rating", at_least=4.0)
    assert found.rows == Condition(column="kind", values=("impression", "click"))
    assert found.split == TimeSplit(valid=0.2, test=0.2)
    # Tables that nobody speaks of are fitted as well; one that is hashed is not.
    assert found.tables == {
        "item": TableRule(min_count=3),
        "tag": TableRule(max_size=4),
        "kind": TableRule(),
        "device": TableRule(),
        "rating": TableRule(),
    }
    assert found.sequences["clicks"].where == Condition(column="label", values=("1",))
    assert found.sequences["views"].where is None
    assert found.as_written == PLAIN["build"]


def test_a_sequence_before_another_comes_after_it_and_takes_its_condition():
    found = rules()
    assert list(found.sequences) == ["clicks", "views", "older"]
    fields = {"older_item": "item_id"}
    clicks = Condition(column="label", values=("1",))
    assert found.sequences["older"] == SequenceRule(fields=fields, where=clicks, before="clicks")
    likes = {"column": "kind", "values": ["like"]}
    sequences = copy.deepcopy(PLAIN["build"]["sequences"])
    sequences["older"]["where"] = likes
    assert rules(sequences=sequences).sequences["older"].where == Condition(
        column="kind", values=("like",)
    )


def test_other_writings():
    found = rules(
        negatives_dict(),
        time_unit="ms",
        exact_order=True,
        duplicates="keep",
        columns={"tags": {"separator": "^"}},
        numeric={"price": {"fixed": True}, "age": {"fixed": False}},
        split={"by": "last", "valid": 1, "test": 2},
    )
    assert (found.time_unit, found.exact_order, found.duplicates) == ("ms", True, "keep")
    assert found.negatives == NegativeRule(per_positive=4, seed=3)
    assert found.separators == {"tags": "^"}
    assert found.fixed == {"price"}
    assert found.split == LastSplit(valid=1, test=2)


def test_splits_at_moments_and_by_column():
    day = datetime.date(2024, 1, 31)
    found = rules(split={"by": "time", "valid_from": day, "test_from": 1_700_000_000})
    assert found.split == TimeSplit(valid_from="2024-01-31", test_from=1_700_000_000)
    assert found.as_written["split"]["valid_from"] == "2024-01-31"
    found = rules(split={"by": "column", "column": "part", "train": ["a", 1], "test": ["b"]})
    assert found.split == ColumnSplit(column="part", train=("a", "1"), test=("b",))


SEQUENCES = PLAIN["build"]["sequences"]
CYCLE = {
    **SEQUENCES,
    "clicks": {**SEQUENCES["clicks"], "before": "older"},
}
MISTAKES = [
    ({"user": None}, "build: key 'user' is missing; add it, the column of the user: histories are"),
    (
        {"time": None},
        "build: key 'time' is missing; add it, the column of the event's time: histories",
    ),
    (
        {"histories": "given"},
        "build: histories is 'given', of rows that have their histories; name",
    ),
    ({"usr": "x"}, "build: key 'usr' does not exist; did you mean 'user'?"),
    ({"user": 3}, "build: user is 3, an int; give text"),
    ({"time_unit": "minutes"}, "build: time_unit is 'minutes'; choose 's', 'ms', 'us' or 'ns'"),
    ({"exact_order": "yes"}, "build: exact_order is 'yes', a str; give true or false"),
    ({"duplicates": "drop"}, "build: duplicates is 'drop'; choose 'reject' or 'keep'"),
    ({"label": {"column": "x"}}, "build: label: give either values or at_least, and not both"),
    ({"label": {"values": [1]}}, "build: label: key 'column' is missing; add it"),
    (
        {"label": {"column": "x", "values": []}},
        "build: label: values is empty; give at least one value",
    ),
    (
        {"label": {"column": "x", "values": [None]}},
        "build: label: values: one is None; give text, numbers, true or false",
    ),
    ({"rows": {"column": "x", "at_least": "four"}}, "build: rows: at_least is 'four', a str"),
    ({"columns": {"tags": {}}}, "build: columns.tags: key 'separator' is missing; add it"),
    (
        {"tables": {"city": {}}},
        "build: tables: 'city' is not a table to be fitted; tables with `vocabulary: []` are item",
    ),
    ({"tables": {"item": {"min_count": 0}}}, "build: tables.item: min_count is 0; give 1 or more"),
    (
        {"tables": {"item": {"most": 1}}},
        "build: tables.item: key 'most' does not exist; known are min_count, max_size",
    ),
    (
        {"numeric": {"city": {"fixed": True}}},
        "build: numeric: 'city' is not a numeric feature or field of the schema; drop it",
    ),
    ({"negatives": {"by": "uniform"}}, "build: negatives: key 'per_positive' is missing; add it"),
    (
        {"negatives": {"per_positive": 1}},
        "build has both negatives and label; with negatives all",
    ),
    (
        {"negatives": {"per_positive": 1, "by": "x"}},
        "build: negatives: by is 'x'; choose 'popularity' or 'uniform'",
    ),
    (
        {"negatives": {"per_positive": 1, "seed": -1}},
        "build: negatives: seed is -1; give 0 or more",
    ),
    (
        {"negatives": {"per_positive": 1}, "label": None},
        "feature 'affinity' is a cross feature, which is unknown for sampled items; drop it, or",
    ),
    (
        {"negatives": {"per_positive": 1}, "item": None},
        "build: negatives needs build: item, the column to sample from; add it",
    ),
    ({"split": {"by": "user"}}, "build: split: by is 'user'; choose 'time', 'last', 'column'"),
    (
        {"split": {"by": "time", "valid": 0.1}},
        "build: split.time: give valid and test, or else valid_from and test_from",
    ),
    (
        {"split": {"by": "time", "valid": 1, "test": 0}},
        "build: split.time: valid is 1; give less than 1",
    ),
    (
        {"split": {"by": "time", "valid": 0.5, "test": 0.5}},
        "valid and test sum to 1; leave a share to train",
    ),
    (
        {"split": {"by": "time", "valid_from": 1}},
        "build: split.time: give valid and test, or else valid_from and test_from",
    ),
    (
        {"split": {"by": "time", "valid_from": [1], "test_from": 2}},
        "build: split.time: valid_from: it is [1]; give a date such as 2024-01-31, or a number",
    ),
    (
        {"split": {"by": "last", "valid": 0.1, "test": 0.1}},
        "build: split.last: valid is 0.1, a float; give a whole number",
    ),
    (
        {"split": {"by": "column", "column": "p", "train": ["a"], "test": ["a"]}},
        "build: split: 'a' is in train and test; keep one",
    ),
    (
        {"split": {"by": "column", "column": "p"}},
        "build: split.column: key 'train' is missing; add it",
    ),
    ({"sequences": {}}, "build: sequences: 'older' is missing; define which events are in it"),
    (
        {"sequences": {**SEQUENCES, "more": {}}},
        "build: sequences.more: key 'fields' is missing; add it",
    ),
    (
        {"sequences": {**SEQUENCES, "older": {}}},
        "build: sequences.older: key 'fields' is missing; add it",
    ),
    (
        {"sequences": {**SEQUENCES, "older": {"before": "older", "fields": {"older_item": "x"}}}},
        "build: sequences: 'older': before is 'older'; choose clicks, views",
    ),
    (
        {"sequences": {**SEQUENCES, "older": {"fields": {"older_item": "hours_before"}}}},
        "field 'older_item' is hours_before, a number, and categorical in the schema; make it",
    ),
    (
        {"sequences": CYCLE},
        "build: sequences: 'older' is before itself, through 'clicks'; remove before from",
    ),
]


@pytest.mark.parametrize(("build", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_one_line(build, words):
    with pytest.raises(UsageError) as error:
        rules(**build)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_rules_are_read_with_their_schema(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(PLAIN))
    schema, found = load_rules(path)
    assert found == rules()
    assert schema == Schema.load(path)
    values = {name: value for name, value in PLAIN.items() if name != "build"}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(
        UsageError, match="has no section `build`, which defines how events become rows"
    ):
        load_rules(path)
