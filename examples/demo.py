"""From raw clicks to gRPC scores: prepare, train, compare, export, serve, score.

Run by `make demo`, which writes everything to build/demo/.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

import loopctr_tf as lc
from loopctr_tf.training.settings import RunConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parent.parent
MARK = ".demo"
"""Marks a folder that the demo wrote and may replace."""
RECENT, LONG = 30, 60
"""Training reads this many events of both histories; up to 50 and 500 are prepared."""
BESIDE = ("din", "dcnv2")
"""Systems that are trained on the same rows with the same training settings."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo"))
@click.option("--raw", type=click.Path(path_type=Path), help="The publisher's own MovieLens files.")
@click.option("--config", type=click.Path(path_type=Path), default=ROOT / "examples/demo.yaml")
@click.option(
    "--set", "overrides", multiple=True, help="Override a setting, e.g. training.epochs=1."
)
def demo(out, raw, config, overrides):
    """Train, export and serve LoopCTR on MovieLens-100K; writes everything to OUT."""
    from loopctr_tf.evaluation.plots import depth_plot, training_plot
    from loopctr_tf.evaluation.predict import evaluate_run
    from loopctr_tf.evaluation.references import reference_metrics
    from loopctr_tf.evaluation.report import write_report
    from loopctr_tf.training.run_folder import load_run
    from loopctr_tf.training.train import train

    seconds = {}

    @contextmanager
    def stage(name, text):
        click.secho(f"\n[{len(seconds) + 1}/7] {text}", bold=True)
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    settings = RunConfig.load(config, overrides)
    if out.exists() and not (out / MARK).is_file():
        raise lc.UsageError(
            f"{str(out)!r} exists and was not written by the demo; remove it or name another"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()

    with stage("prepare", "prepare: rows with histories from MovieLens-100K"):
        command = [sys.executable, str(ROOT / "data/movielens/prepare.py"), "--out"]
        command += [str(out / "prepared"), *(["--raw", str(raw)] if raw else [])]
        prepared = subprocess.run(command)
        if prepared.returncode:
            raise SystemExit(prepared.returncode)  # prepare.py has printed the reason
    schema = shortened(lc.Schema.load(out / "prepared"))

    with stage("train", "train: every depth 0..L is supervised"):
        lengths = {sequence.name: sequence.max_length for sequence in schema.sequences}
        click.echo(f"width {settings.model.dim}, histories {lengths}")
        results = train(out / "prepared", out / "run", settings, schema)
        training_plot(out / "training_curves.png", results["history"])

    with stage("beside", f"train {' and '.join(BESIDE)} on the same rows, to stand beside it"):
        beside = []
        for name in BESIDE:
            common = {"dim": settings.model.dim, "dropout": settings.model.dropout}
            config = RunConfig.from_dict({**settings.to_dict(), "model": {"name": name, **common}})
            train(out / "prepared", out / f"run_{name}", config, schema)
            beside += evaluate_run(load_run(out / f"run_{name}")[0], out / "prepared")[0]

    with stage("evaluate", "evaluate: exact metrics by depth, and two simple references"):
        model, _ = load_run(out / "run")
        depths, predictions = evaluate_run(model, out / "prepared")
        references = reference_metrics(out / "prepared")
        lines = {**{row["model"]: row for row in beside}, **references}
        depth_plot(out / "auc_by_depth.png", depths, lines)

    with stage("export", "export: one SavedModel that takes raw features"):
        lc.export_saved_model(model, out / "models/loopctr/1", metrics=results)

    with stage("serve", "serve: score the test split over gRPC"):
        served, serving = score_test(out, schema)
    difference = float(np.abs(served - predictions.probabilities).max())

    facts = {
        "depths": depths,
        "beside": beside,
        "references": references,
        "served_max_abs_diff": difference,
        "parameters": results["parameters"],
        "best_epoch": results["best_epoch"],
        "protocol": results["protocol"],
        "serving": serving,
        "seconds": seconds,
        "config": settings.to_dict(),
        "histories": lengths,
    }
    with stage("report", "report"):
        text = write_report(
            out,
            "LoopCTR on MovieLens-100K",
            facts,
            [f"histories: {lengths}; best epoch {results['best_epoch']} by {results['monitor']}"],
            settings.model.loops,
        )
    click.echo(text)
    if difference > 1e-5:
        raise SystemExit(
            f"served probabilities differ from Keras's by {difference:.1e}, more than 1e-5"
        )
    for name, values in references.items():
        if values["auc"] >= depths[0]["auc"]:
            raise SystemExit(f"{name} has the better AUC: {values['auc']:.4f}")
    click.echo(NEXT.format(out=out))


def shortened(schema: lc.Schema) -> lc.Schema:
    """The schema with its histories cut to the most recent :data:`RECENT` and :data:`LONG` events."""
    most = {"history": RECENT, "long_history": LONG}
    return schema.replace(
        sequences=[s.replace(max_length=min(s.max_length, most[s.name])) for s in schema.sequences]
    )


def score_test(out: Path, schema: lc.Schema, rows_per_call: int = 100):
    """Probabilities [rows, depths] of the test split from the embedded server, and its speed."""
    from loopctr_tf.scoring import PredictionServer

    dataset = lc.read_dataset(out / "prepared/test", schema, batch_size=rows_per_call)
    served, milliseconds = [], []
    with (
        PredictionServer(out / "models/loopctr", model_name="loopctr") as server,
        lc.ScoringClient(server.target) as client,
    ):
        for features, _ in dataset:
            request = {name: value.numpy() for name, value in features.items()}
            start = time.perf_counter()
            client.score(request)
            milliseconds.append(1e3 * (time.perf_counter() - start))
            served.append(client.score(request, signature="all_depths"))
    rows = sum(map(len, served))
    return np.concatenate(served), {
        "rows_per_call": rows_per_call,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "rows_per_s": rows / (sum(milliseconds) / 1e3),
    }


NEXT = """
Try next:
  .venv/bin/loopctr evaluate {out}/run {out}/prepared --split valid --loops 6
  .venv/bin/loopctr serve {out}/models/loopctr --port 8500      (in another terminal)
  .venv/bin/loopctr score {out}/prepared/test --target 127.0.0.1:8500 --out scores.csv
  .venv/bin/tensorboard --logdir {out}/run/logs
  .venv/bin/loopctr train {out}/prepared build/my_run --set dim=64 --set loops=2
"""

if __name__ == "__main__":
    try:
        demo()
    except lc.UsageError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(2)
