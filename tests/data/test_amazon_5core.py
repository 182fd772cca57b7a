"""The Amazon 5-core recipe: the publisher's layout, timed events, and sequences without times."""

import json
import sys

import pytest
from amazon_files import REVIEWS, write_json
from click.testing import CliRunner
from recipes import load_script, read_rows

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.schema import Schema

recipe = load_script("amazon_5core")
tables = sys.modules["five_core_tables"]

# Names of brands and categories in META of `amazon_files`, without "Top", which is all the data.
ATTRIBUTES = {
    "A": ["Kodak", "Cameras", "Photo", "Film"],
    "B": ["Men's", 'Wire 5"'],
    "C": ["Film"],
    "D": ["Kodak"],
    "F": ["Cameras"],
}


def write_timed(folder, reviews=REVIEWS, other="[5, 6]"):
    """Tab-separated in spite of the names, with columns of no use; I has no event."""
    folder.mkdir()
    lines = ["user_id\titem_id\ttime", *(f"{u}\t{i}\t{day * 86400}" for u, i, day in reviews)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    items = [f"{item}\t{ord(item) % 3}\t{other}\t[]" for item in "ABCDEFGHI"]
    header = "item_id\ti_category\tr_complement\tr_substitute"
    (folder / "item_meta.csv").write_text("\n".join([header, *items]) + "\n")
    return folder


# User 3 has all items but those of user 4, which have no attributes.
SEQUENCES = {"1": "abcd", "2": "ca", "3": "bacde", "4": "fg"}
NUMBERS = {"a": [1, 2], "b": [3], "c": list(range(10, 20)), "d": [1, 1], "e": []}


def write_sequences(folder):
    folder.mkdir()
    lines = [" ".join([user, *items]) for user, items in SEQUENCES.items()]
    (folder / "Toys.txt").write_text("\n".join(lines) + "\n")
    (folder / "Toys_item2attributes.json").write_text(json.dumps(NUMBERS))
    return folder


WRITERS = {"json": write_json, "timed": write_timed, "sequences": write_sequences}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """For each layout (the raw folder, the prepared one, its statistics)."""
    folder = tmp_path_factory.mktemp("five_core")
    made = {}
    for layout, write in WRITERS.items():
        raw, out = write(folder / f"{layout}-raw"), folder / layout
        made[layout] = raw, out, recipe.prepare(raw, out, workers=1)
    return made


def positives(folder, split):
    return {
        (*r["user_id"], *r["item_id"]): r for r in read_rows(folder, split) if r["label"] == [1]
    }


def split_pairs(folder):
    return {split: sorted(positives(folder, split)) for split in SPLITS}


@pytest.mark.parametrize("layout", ["json", "timed"])
def test_the_last_event_of_each_user_is_test_the_one_before_valid(layout, prepared):
    # U3 has two events; of U1's two events of day 2, B is first in the file.
    assert split_pairs(prepared[layout][1]) == {
        "train": [("U1", "A"), ("U1", "B"), ("U1", "C"), ("U2", "C"), ("U3", "G"), ("U3", "H")],
        "valid": [("U1", "D"), ("U2", "E")],
        "test": [("U1", "E"), ("U2", "F")],
    }


@pytest.mark.parametrize("layout", ["json", "timed"])
def test_events_of_one_day_do_not_see_each_other(layout, prepared):
    train = positives(prepared[layout][1], "train")
    assert train["U1", "B"]["history_item_id"] == train["U1", "C"]["history_item_id"] == ["A"]
    test = positives(prepared[layout][1], "test")
    assert test["U1", "E"]["history_item_id"] == ["A", "B", "C", "D"]


def test_places_in_a_line_are_the_order_of_events(prepared):
    _, out, stats = prepared["sequences"]
    assert split_pairs(out) == {
        "train": [
            ("1", "a"),
            ("1", "b"),
            ("2", "a"),
            ("2", "c"),
            *(("3", i) for i in "abc"),
            *(("4", i) for i in "fg"),
        ],
        "valid": [("1", "c"), ("3", "d")],
        "test": [("1", "d"), ("3", "e")],
    }
    rows = {k: r for split in SPLITS for k, r in positives(out, split).items()}
    for (user, item), row in rows.items():
        before = SEQUENCES[user][: SEQUENCES[user].index(item)]
        assert row["history_item_id"] == list(before)
    assert stats["time"] == "place among the user's events"


def test_attributes_are_brand_and_categories_below_the_first(prepared):
    _, out, stats = prepared["json"]
    row = positives(out, "test")["U1", "E"]
    assert row["attributes"] == []
    assert row["history_attributes"] == [name for item in "ABCD" for name in ATTRIBUTES[item]]
    assert row["history_attributes_counts"] == [len(ATTRIBUTES[item]) for item in "ABCD"]
    assert positives(out, "test")["U2", "F"]["attributes"] == ATTRIBUTES["F"]
    assert stats["items_without_attributes"] == 2
    assert stats["items_without_row"] == 1


def test_max_attributes_is_that_of_the_schema():
    schema = Schema.load(recipe.SCHEMA)
    fields = [f for f in schema.all_fields() if f.type == "multi_categorical"]
    assert {field.max_values for field in fields} == {tables.MAX_ATTRIBUTES}


def test_bad_lines_are_left_out_and_counted(tmp_path):
    raw = write_sequences(tmp_path / "raw")
    with (raw / "Toys.txt").open("a") as file:
        file.write("5\n1 a\n")
    stats = recipe.prepare(raw, tmp_path / "out", skip_bad=True, workers=1)
    assert stats["rejected_lines"] == {"no user with items behind": 1, "user has a line already": 1}
    assert stats["events"]["used"] == 13
    assert (tmp_path / "out" / "rejected_lines.csv").read_text().count("Toys.txt") == 2


def run(*arguments):
    return CliRunner().invoke(recipe.main, [str(argument) for argument in arguments])


def test_command_line(prepared, tmp_path):
    raw, _, _ = prepared["timed"]
    result = run("--raw", raw, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("rows train 12, valid 4, test 4; 3 users, 8 items\n")
    assert "WARNING: 10 reviews were found" in result.stderr
