"""Reports for people and programs, and the pictures beside them."""

import json
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from loopctr_tf.evaluation import plots
from loopctr_tf.evaluation.plots import depth_plot, training_plot
from loopctr_tf.evaluation.report import depth_rows, metrics_table, write_report

DEPTHS = [
    {"loops": 0, "auc": 0.71234, "gauc": 0.65, "ne": 0.9, "calibration": 1.0},
    {"loops": 1, "auc": 0.72, "gauc": float("nan"), "ne": 0.89996, "calibration": 0.98765},
]
REFERENCES = {"item_mean_ctr": {"auc": 0.6, "gauc": 0.55, "ne": 0.95, "calibration": 1.1}}
HISTORY = {
    "loss": [0.7, 0.6],
    "loop_0_loss": [0.71, 0.61],
    "loop_1_loss": [0.69, 0.59],
    "loop_0_auc": [0.5, 0.6],
    "loop_1_auc": [0.55, 0.65],
    "balance_loss": [1.0, 1.0],
    "val_loss": [0.68, 0.62],
    "val_loop_0_loss": [0.70, 0.63],
    "val_loop_1_loss": [0.66, 0.61],
    "val_loop_0_auc": [0.52, 0.58],
    "val_loop_1_auc": [0.54, 0.6],
}


def facts(**more) -> dict:
    return {
        "depths": DEPTHS,
        "references": REFERENCES,
        "served_max_abs_diff": 1.23e-7,
        "parameters": 12345,
        "seconds": {"prepare": 1.25, "train": 60.0},
        **more,
    }


def test_the_table_names_depths_as_the_paper_does():
    assert metrics_table([*depth_rows(DEPTHS, loops=3), ("made up", {"auc": 0.5})]) == (
        "|              |    AUC |   GAUC |     NE |   calibration |\n"
        "|:-------------|-------:|-------:|-------:|--------------:|\n"
        "| LoopCTR(0/3) | 0.7123 | 0.6500 | 0.9000 |        1.0000 |\n"
        "| LoopCTR(1/3) | 0.7200 |        | 0.9000 |        0.9877 |\n"
        "| made up      | 0.5000 |        |        |               |"
    )


def test_rows_are_named_by_model_and_head():
    rows = [
        {"model": "StackCTR", "head": "loop_2", "loops": 2, "auc": 0.7},
        {"model": "DLRM", "head": "", "auc": 0.6},
        {"model": "MMoE", "head": "buy", "auc": 0.6},
    ]
    assert [name for name, _ in depth_rows(rows, loops=3)] == ["StackCTR(2/3)", "DLRM", "MMoE buy"]
    assert [name for name, _ in depth_rows(rows)] == ["StackCTR(2)", "DLRM", "MMoE buy"]


def test_the_json_holds_all_facts_and_no_nan(tmp_path):
    write_report(tmp_path, "Title", facts(best_epoch=2), [], loops=3)
    text = (tmp_path / "report.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["depths"] == [DEPTHS[0], {**DEPTHS[1], "gauc": None}]
    assert found["references"] == REFERENCES
    assert found["served_max_abs_diff"] == 1.23e-7
    assert (found["parameters"], found["best_epoch"]) == (12345, 2)
    assert found["seconds"] == {"prepare": 1.25, "train": 60.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_the_page_has_depths_references_serving_and_times(tmp_path):
    serving = {"rows_per_call": 100, "p50_ms": 5.04, "p99_ms": 9.96, "rows_per_s": 19841.2}
    text = write_report(tmp_path, "A title", facts(serving=serving), ["a note"], loops=3)
    assert (tmp_path / "report.md").read_text() == text
    lines = text.splitlines()
    assert lines[0] == "# A title"
    assert lines[2].startswith("12,345 parameters. Test split")
    assert "| item mean ctr | 0.6000 | 0.5500 | 0.9500 |        1.1000 |" in lines
    assert "- largest difference between a served probability and Keras's: 1.2e-07" in lines
    called = "- one call of 100 rows: p50 5.0 ms, p99 10.0 ms; 19,841 rows/s over gRPC"
    assert called in lines
    assert lines.index("- prepare: 1.2") + 1 == lines.index("- train: 60.0")
    assert lines[-1] == "- a note"
    assert "![AUC by depth](auc_by_depth.png)" in lines
    assert "one call of" not in write_report(tmp_path, "A title", facts(), [], loops=3)


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The lines of each axis of a figure, by label, and its file."""

    def call(draw, *arguments):
        closed = []
        monkeypatch.setattr(plots.plt, "close", closed.append)
        path = tmp_path / "plot.png"
        draw(path, *arguments)
        monkeypatch.undo()
        assert Path(path).read_bytes().startswith(PNG)
        (figure,) = closed
        lines = [
            [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in a.lines]
            for a in figure.axes
        ]
        titles = [axis.get_title() for axis in figure.axes]
        plt.close(figure)
        return titles, lines

    return call


def test_the_depth_plot_shows_figures_and_references(drawn):
    titles, (auc, gauc) = drawn(depth_plot, DEPTHS, REFERENCES)
    assert titles == ["AUC by loop depth, test", "GAUC by loop depth, test"]
    assert auc[0] == ("LoopCTR", [0, 1], [0.71234, 0.72])
    assert (auc[1][0], auc[1][2]) == ("item mean ctr", [0.6, 0.6])
    assert gauc[0][2][0] == 0.65
    assert gauc[1][2] == [0.55, 0.55]


def test_the_training_plot_shows_every_depth_of_both_splits(drawn):
    _, (loss, auc) = drawn(training_plot, HISTORY)
    assert [line[2] for line in loss] == [
        HISTORY[name]
        for name in ("loop_0_loss", "val_loop_0_loss", "loop_1_loss", "val_loop_1_loss")
    ]
    assert [line[2] for line in auc] == [
        HISTORY[name] for name in ("loop_0_auc", "val_loop_0_auc", "loop_1_auc", "val_loop_1_auc")
    ]
    assert loss[1] == ("loop 0", [1, 2], [0.70, 0.63])


def test_the_training_plot_of_a_model_with_one_head(drawn):
    history = {
        "loss": [0.7, 0.6],
        "auc": [0.5, 0.6],
        "val_loss": [0.8, 0.7],
        "val_auc": [0.5, 0.55],
    }
    _, (loss, auc) = drawn(training_plot, history)
    assert [line[2] for line in loss] == [history["loss"], history["val_loss"]]
    assert [line[2] for line in auc] == [history["auc"], history["val_auc"]]


def test_the_training_plot_does_without_validation(drawn):
    history = {name: v for name, v in HISTORY.items() if not name.startswith("val_")}
    _, (loss, auc) = drawn(training_plot, history)
    assert [(label, values) for label, _, values in loss] == [
        ("loop 0", HISTORY["loop_0_loss"]),
        ("loop 1", HISTORY["loop_1_loss"]),
    ]
    assert len(auc) == 2


def test_no_figure_stays_open(tmp_path):
    before = plt.get_fignums()  # those of other tests
    depth_plot(tmp_path / "depth.png", DEPTHS)
    training_plot(tmp_path / "training.png", HISTORY)
    assert plt.get_fignums() == before
    assert (tmp_path / "depth.png").read_bytes().startswith(PNG)
