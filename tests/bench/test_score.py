"""`loopctr bench score` measures exports on a model that is quick to run."""

import json

import pytest

from loopctr_tf.bench import kinds
from loopctr_tf.bench.flops import flops_of
from loopctr_tf.bench.steps import made_up_batches
from loopctr_tf.bench.texts import score_text
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.errors import UsageError
from loopctr_tf.models import LoopCTR
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from tests.bench.test_train import SMALL
from tests.session import command

SIZES = ["--history=3", "--batch-size=1,6", "--loops=0,1", "--seconds=0"]


@pytest.fixture(scope="module")
def report():
    return json.loads(command("bench", "score", *SIZES, *SMALL, "--json"))


def test_every_depth_and_size_once(report):
    rows = report["scoring"]
    assert [(row["batch_size"], row["loops"]) for row in rows] == [(1, 0), (1, 1), (6, 0), (6, 1)]
    assert {row["head"]: row["loops"] for row in rows} == {"loop_0": 0, "loop_1": 1}
    model = LoopCTR(workload_schema(3), LoopCTRConfig.from_dict(report["settings"]))
    ((one, _),) = made_up_batches(model.schema, 1)
    for row in rows:
        assert row["calls"] >= 5
        assert row["examples_per_s"] == pytest.approx(1e3 * row["batch_size"] / row["p50_ms"])
        work = flops_of(model.score, one, loops=row["loops"])
        assert row["flops_per_example"] == work
        share = row["examples_per_s"] * work / row["matmul_rate"]
        assert row["share_of_matmul_rate"] == pytest.approx(share)
        assert row["peak_memory_bytes"] > 0


def test_where_the_time_goes_by_depth(report):
    def products(row):
        counts = {kind["kind"]: kind["count"] for kind in row["where_time_goes"]["kinds"]}
        return counts[kinds.PRODUCTS]

    flat, deep = report["scoring"][2:]
    assert 0 < products(flat) < products(deep)
    # Nothing of a training step.
    names = {kind["kind"] for row in report["scoring"] for kind in row["where_time_goes"]["kinds"]}
    assert kinds.OPTIMIZER not in names


def test_people_read_one_table_of_speeds_and_one_of_kinds(report):
    several = score_text(report).split("\n\n")
    assert several[0].startswith("Rows of 3 events scored one by one, in process")
    assert several[1].split()[:7] == ["|", "head", "|", "rows", "|", "p50", "ms"]
    assert len(several[1].splitlines()) == 2 + 4
    heading = [cell.strip() for cell in several[3].splitlines()[0].split("|")[1:-1]]
    assert heading == ["kind", "loop_0, 1", "loop_1, 1", "loop_0, 6", "loop_1, 6"]
    one = score_text({**report, "long_history": 5, "scoring": report["scoring"][:1]})
    assert one.startswith("Rows of 3+5 events scored")
    assert "Where a call's time goes: " in one
    assert " ms a call | " in one


def test_a_model_with_one_head():
    hstu = ["--set=model.name=hstu", "--set=dim=4", "--set=heads=1"]
    sizes = ["--history=3", "--batch-size=6", "--seconds=0"]
    report = json.loads(command("bench", "score", *hstu, *sizes, "--json"))
    (row,) = report["scoring"]
    assert (report["model"], row["head"], row["loops"]) == ("hstu", "", None)
    assert row["flops_per_example"] > 0
    assert score_text(report).split("\n\n")[1].splitlines()[2].split()[1] == "hstu"
    with pytest.raises(UsageError, match="HSTU has no loops, leave it out"):
        command("bench", "score", *hstu, *sizes, "--loops=0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "x"], "--batch-size is 'x'; give whole numbers"),
        (["--batch-size", "64,0"], "batch sizes are [64, 0]; give 1 or more"),
        (["--loops", "0,99"], "loops is 99; this model runs at 0 to 8 loops"),
        (["--loops", "-1"], "loops is -1; give a whole number from 0 to 8"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UsageError) as caught:
        command("bench", "score", *SMALL, *arguments)
    assert message in str(caught.value)
