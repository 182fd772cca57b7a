import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.plan import Source, make_plan
from loopctr_tf.prepare.rules import read_rules
from loopctr_tf.prepare.wanted import WantedColumn
from tests.prepare.logs import negatives_dict, schema_dict

HAVE = {
    "events": ["user_id", "item_id", "time", "kind", "rating", "device", "affinity", "split"],
    "items": ["item_id", "price", "tags"],
    "users": ["user_id", "age", "city"],
}


def plan(values=None, have=HAVE, change=None):
    values = values or schema_dict()
    if change is not None:
        change(values)
    build = values.pop("build")
    schema = Schema.from_dict(values)
    return make_plan(schema, read_rules(build, schema), have)


def wanted(found, table) -> dict[str, WantedColumn]:
    return {column.name: column for column in found.wanted[table]}


def test_every_feature_and_field_has_a_source():
    found = plan()
    assert found.features["item_id"] == Source("events", "item_id", "string")
    assert found.features["price"] == Source("items", "price", "float32")
    assert found.features["age"] == Source("users", "age", "float32")
    assert found.features["device"] == Source("events", "device", "int64")
    assert found.features["user_id"] == Source("events", "user_id", "string")
    assert found.fields["clicks_tags"] == Source("items", "tags", "string")
    assert found.fields["clicks_age"] == Source("age", "hours_before", "float32")
    assert found.fields["views_label"] == Source("label", "label", "float32")


def test_only_what_is_needed_is_read():
    found = plan()
    events = wanted(found, "events")
    assert set(events) == {"user_id", "item_id", "time", "kind", "rating", "device", "affinity"}
    assert events["time"] == WantedColumn("time", "time", required=True)
    assert events["user_id"] == WantedColumn("user_id", "string", required=True)
    # A label needs its column, a condition on rows does not; text is stronger than a number.
    assert events["rating"] == WantedColumn("rating", "string", required=True)
    assert events["kind"] == WantedColumn("kind", "string")
    assert events["device"] == WantedColumn("device", "int64")
    items = wanted(found, "items")
    assert items["item_id"] == WantedColumn("item_id", "string", required=True)
    assert items["tags"] == WantedColumn("tags", "string", many=True)
    assert wanted(found, "users")["age"] == WantedColumn("age", "float32")


def test_a_column_of_the_events_goes_before_that_of_a_table():
    have = {**HAVE, "events": [*HAVE["events"], "price", "age"]}
    found = plan(have=have)
    assert found.features["price"].table == found.features["age"].table == "events"
    sampled = plan(negatives_dict(), have)
    assert sampled.features["price"].table == "items"
    assert sampled.features["item_id"].table == "events"
    assert sampled.fields["clicks_price"].table == "events"


def test_the_label_column_is_read_where_there_is_no_rule():
    have = {**HAVE, "events": [*HAVE["events"], "label"]}
    found = plan(schema_dict(label=None), have)
    assert wanted(found, "events")["label"] == WantedColumn("label", "binary", required=True)
    assert "label" not in wanted(plan(negatives_dict(), have), "events")


def test_ids_have_the_type_of_their_table():
    def whole(values):
        values["tables"]["item"]["dtype"] = "int64"

    found = plan(change=whole)
    assert (
        wanted(found, "events")["item_id"].type == wanted(found, "items")["item_id"].type == "int64"
    )


def test_a_whole_number_that_is_also_a_number_is_read_as_text():
    """In text a missing value is neither."""

    def both(values):
        values["build"]["rows"] = {"column": "device", "at_least": 8}

    assert wanted(plan(change=both), "events")["device"].type == "string"


def test_separators_go_to_their_columns():
    found = plan(schema_dict(columns={"tags": {"separator": "|"}}))
    assert wanted(found, "items")["tags"] == WantedColumn(
        "tags", "string", separator="|", many=True
    )


def test_a_column_for_the_split_is_required():
    split = {"by": "column", "column": "split", "train": ["a"]}
    assert wanted(plan(schema_dict(split=split)), "events")["split"].required


def without(table, *columns):
    have = {name: [c for c in names if c not in columns] for name, names in HAVE.items()}
    return (
        {**HAVE, table: have[table]} if columns else {k: v for k, v in HAVE.items() if k != table}
    )


def added(name, **feature):
    def change(values):
        values["features"].append({"name": name, **feature})

    return change


MISTAKES = [
    (
        without("events", "user_id"),
        None,
        "build: user: --events has no column 'user_id'; its colum",
    ),
    (
        without("events", "kind"),
        None,
        "field 'views_kind': no column 'kind' in --events or --items",
    ),
    (
        without("events", "device"),
        None,
        "feature 'device': no column 'device' in --events; add it, or",
    ),
    (
        without("items", "price"),
        None,
        "feature 'price': no column 'price' in --events or --items; add",
    ),
    (
        without("items"),
        None,
        "feature 'price': no column 'price' in --events; give --items with it",
    ),
    (without("users"), None, "feature 'age': no column 'age' in --events; give --users with it"),
    (without("items", "item_id"), None, "--items has no column 'item_id', which it is joined by"),
    (
        HAVE,
        added("time", type="numeric", side="context"),
        "column 'time' is the time of the events",
    ),
    (
        {**HAVE, "events": [*HAVE["events"], "tags"]},
        added("kind", type="multi_categorical", side="item", table="tag", max_values=2),
        "column 'kind' holds lists for feature 'kind' and one value for field 'views_kind'; use",
    ),
    (
        HAVE,
        lambda values: values["build"].update(label=None),
        "label: --events has no column 'label'; add it, or define it with build: label",
    ),
    (
        HAVE,
        lambda values: values["build"].update(item=None),
        "--items needs build: item, the column it is joined by",
    ),
    (
        HAVE,
        lambda values: values["build"].update(columns={"kind": {"separator": "|"}}),
        "build: columns: 'kind' is not the column of a multi-valued feature or field; drop it",
    ),
    (
        HAVE,
        lambda values: values.update(group="session"),
        "group: --events has no column 'session'; its columns are user_id, item_id, time",
    ),
]


@pytest.mark.parametrize(("have", "change", "words"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_mistake_is_one_line(have, change, words):
    with pytest.raises(UsageError) as error:
        plan(have=have, change=change)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_sampled_items_need_a_table_for_their_features():
    with pytest.raises(UsageError) as error:
        plan(negatives_dict(), without("items"))
    assert str(error.value) == (
        "feature 'price': its column is 'price', because negatives are sampled; give --items with it"
    )

    def number(values):
        values["features"][0] = {"name": "item_id", "type": "numeric", "side": "item"}

    with pytest.raises(UsageError, match="'item_id' is the item to sample negatives from; make"):
        plan(negatives_dict(), change=number)
