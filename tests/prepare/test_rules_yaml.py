"""What the section `build` may say, and one line for each mistake in it."""

import copy
import datetime

import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.rules import (
    ColumnSplit,
    Condition,
    LastSplit,
    NegativeRule,
    SequenceRule,
    TableRule,
    TimeSplit,
)
from loopctr_tf.prepare.rules_yaml import load_rules, read_rules
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
    assert found.label == Condition("rating", at_least=4.0)
    assert found.rows == Condition("kind", values=("impression", "click"))
    assert found.split == TimeSplit(0.2, 0.2)
    # Tables that nobody speaks of are fitted as well; one that is hashed is not.
    assert found.tables == {
        "item": TableRule(min_count=3),
        "tag": TableRule(max_size=4),
        "kind": TableRule(),
        "device": TableRule(),
        "rating": TableRule(),
    }
    assert found.sequences["clicks"].where == Condition("label", values=("1",))
    assert found.sequences["views"].where is None
    assert found.as_written == PLAIN["build"]


def test_a_sequence_before_another_comes_after_it_and_takes_its_condition():
    found = rules()
    assert list(found.sequences) == ["clicks", "views", "older"]
    fields = {"older_item": "item_id"}
    clicks = Condition("label", values=("1",))
    assert found.sequences["older"] == SequenceRule(fields, clicks, "clicks")
    likes = {"column": "kind", "values": ["like"]}
    sequences = copy.deepcopy(PLAIN["build"]["sequences"])
    sequences["older"]["where"] = likes
    assert rules(sequences=sequences).sequences["older"].where == Condition("kind", ("like",))


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
    assert found.negatives == NegativeRule(4, "popularity", 3)
    assert found.separators == {"tags": "^"}
    assert found.fixed == {"price"}
    assert found.split == LastSplit(1, 2)


def test_splits_at_moments_and_by_column():
    day = datetime.date(2024, 1, 31)
    found = rules(split={"by": "time", "valid_from": day, "test_from": 1_700_000_000})
    assert found.split == TimeSplit(valid_from="2024-01-31", test_from=1_700_000_000)
    assert found.as_written["split"]["valid_from"] == "2024-01-31"
    found = rules(split={"by": "column", "column": "part", "train": ["a", 1], "test": ["b"]})
    assert found.split == ColumnSplit("part", {"a": "train", "1": "train", "b": "test"})


SEQUENCES = PLAIN["build"]["sequences"]
CYCLE = {
    **SEQUENCES,
    "clicks": {**SEQUENCES["clicks"], "before": "older"},
}
MISTAKES = [
    ({"user": None}, "build has no 'user'; add it"),
    ({"usr": "x"}, "build has an unknown key 'usr'; known are user, item, "),
    ({"user": 3}, "build: user is 3; name a column"),
    ({"time_unit": "minutes"}, "build: time_unit is 'minutes'; choose s, ms, us, ns"),
    ({"exact_order": "yes"}, "build: exact_order is 'yes'; write true or false"),
    ({"duplicates": "drop"}, "build: duplicates is 'drop'; choose reject, keep"),
    ({"label": {"column": "x"}}, "build: label needs either values or at_least, and not both"),
    ({"label": {"values": [1]}}, "build: label has no 'column'; add it"),
    ({"label": {"column": "x", "values": []}}, "build: label: values is empty; list at least one"),
    (
        {"label": {"column": "x", "values": [True]}},
        "build: label: values holds True; give text or whole numbers, quote others",
    ),
    ({"rows": {"column": "x", "at_least": "4"}}, "build: rows: at_least is '4'; give a number"),
    ({"columns": {"tags": {}}}, "build: columns: 'tags': separator is None; give text such as"),
    ({"tables": {"city": {}}}, "build: tables: 'city' is no table of the schema with `vocabulary"),
    ({"tables": {"item": {"min_count": 0}}}, "build: tables: 'item': min_count is 0; give a whole"),
    ({"tables": {"item": {"most": 1}}}, "build: tables: 'item' has an unknown key 'most'"),
    ({"numeric": {"city": {"fixed": True}}}, "build: numeric: 'city' is no numeric feature or"),
    ({"negatives": {"by": "uniform"}}, "build: negatives has no 'per_positive'; say how many"),
    (
        {"negatives": {"per_positive": 1}},
        "build has both negatives and label; with negatives every",
    ),
    ({"negatives": {"per_positive": 1, "by": "x"}}, "build: negatives: by is 'x'; choose popular"),
    ({"negatives": {"per_positive": 1, "seed": -1}}, "build: negatives: seed is -1; give a whole"),
    (
        {"negatives": {"per_positive": 1}, "label": None},
        "feature 'affinity' is a cross feature, which is not known of a sampled item; drop it, or",
    ),
    (
        {"negatives": {"per_positive": 1}, "item": None},
        "build: negatives needs build: item, the column to sample from; add it",
    ),
    ({"split": {"by": "user"}}, "build: split: by is 'user'; choose time, last, column"),
    ({"split": {"by": "time", "valid": 0.1}}, "build: split has no 'test'; add it"),
    ({"split": {"by": "time", "valid": 1, "test": 0}}, "build: split: valid is 1; give a share of"),
    (
        {"split": {"by": "time", "valid": 0.5, "test": 0.5}},
        "valid and test are 1; leave train some",
    ),
    ({"split": {"by": "time", "valid_from": 1}}, "build: split has no 'test_from'; add it"),
    (
        {"split": {"by": "time", "valid_from": [1], "test_from": 2}},
        "build: split: valid_from is [1]; give a date such as 2024-01-31, or a number",
    ),
    (
        {"split": {"by": "last", "valid": 0.1, "test": 0.1}},
        "build: split: valid is 0.1; give a number of rows a user",
    ),
    (
        {"split": {"by": "column", "column": "p", "train": ["a"], "test": ["a"]}},
        "build: split: 'a' is in train and test; keep one",
    ),
    ({"split": {"by": "column", "column": "p"}}, "build: split has no 'train'; add it"),
    ({"sequences": {}}, "build: sequences: 'older' is missing; say which events go into it"),
    (
        {"sequences": {**SEQUENCES, "more": {}}},
        "build: sequences has an unknown key 'more'; known are older, clicks, views",
    ),
    (
        {"sequences": {**SEQUENCES, "older": {}}},
        "build: sequences: 'older': fields has no 'older_item'; name its column",
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
        "build: sequences: 'older' stands before itself, by way of 'clicks'; let",
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
    with pytest.raises(UsageError, match="has no section `build`, which says how rows are made"):
        load_rules(path)
