"""`loopctr bench tables` measures steps by the size of a table, and asks for no more than there is."""

import json

import pytest

from loopctr_tf.bench import machine
from loopctr_tf.bench.texts import table_sizes_text
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.errors import UsageError
from tests.bench.test_train import SIZES, SMALL
from tests.session import command

OPTIONS = [*SIZES, *SMALL, "--set", "embedding_dim=4", "--set", "loops=0"]


@pytest.fixture(scope="module")
def report():
    sizes = ["--rows", "3000,50,3000", "--set", "table_optimizer=lazy_adamw"]
    return json.loads(command("bench", "tables", *sizes, *OPTIONS, "--json"))


def test_sizes_once_from_the_smallest(report):
    assert [row["table_rows"] for row in report["tables"]] == [50, 3000]
    assert report["tables"][0]["times_smallest"] == 1
    assert {row["calls"] for row in report["tables"]} == {report["tables"][0]["calls"]}
    assert report["training"]["table_optimizer"] == "lazy_adamw"
    # Four rows of an item and three clicks each, of 100,000 items.
    assert 13 <= report["distinct_ids"] <= 16


def test_a_table_is_kept_three_times(report):
    small, large = (row["state_bytes"] for row in report["tables"])
    assert large - small == (3000 - 50) * 4 * 4 * 3


def test_only_the_item_table_changes():
    rows = {table.name: table.hash_buckets for table in workload_schema(5, item_buckets=50).tables}
    assert rows == {"user": 100_000, "item": 50, "category": 1_000}


def test_people_read_a_table(report):
    lines = table_sizes_text(report).splitlines()
    assert lines[0].startswith("A training step of 4 rows (3 events each, ")
    assert lines[2].split()[:6] == ["|", "table", "rows", "|", "p50", "ms"]
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["50", "3,000"]


def test_what_does_not_fit_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 10 * 2**30)
    big = ["--rows", "10000,20000000", "--set", "embedding_dim=32"]
    # 20 million x 32 x 4 bytes are 2.4 GiB: nine times, and a quarter on top.
    with pytest.raises(UsageError) as caught:
        command("bench", "tables", *big)
    assert str(caught.value) == (
        "table rows are [10000, 20000000], which takes about 26.8 GiB with table_optimizer 'adamw', "
        "and 10.0 GiB are at hand; give fewer rows, or --set table_optimizer=lazy_adamw"
    )
    with pytest.raises(UsageError, match=r"14\.9 GiB .* or a smaller embedding_dim"):
        command("bench", "tables", *big, "--set", "table_optimizer=lazy_adamw")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x", "--rows is 'x'; give whole numbers"),
        ("10,0", "table rows are [10, 0]; give 1 or more"),
    ],
)
def test_mistakes_are_one_line(rows, message):
    with pytest.raises(UsageError) as caught:
        command("bench", "tables", "--rows", rows, *SMALL)
    assert message in str(caught.value)
