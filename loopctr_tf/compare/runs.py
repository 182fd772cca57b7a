"""The trainings of a comparison: a process a system; what an earlier call finished is skipped."""

import hashlib
import json
import os
import queue
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from loopctr_tf.compare.protocol import Comparison, Row
from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import read_stats
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import json_text, write_json

CHOICE = "choice.json"
SPLITS = ("valid", "test")


def row_folder(out: Path, row: Row) -> Path:
    """Where a row's search and runs lie."""
    return out / "runs" / row.name.replace(" ", "_")


def seed_folder(out: Path, row: Row, seed: int) -> Path:
    """The run folder of one final training, with ``valid.npz`` and ``test.npz`` beside the rest."""
    return row_folder(out, row) / f"seed-{seed}"


def train_rows(
    out: Path,
    prepared: Path,
    comparison: Comparison,
    jobs: int = 1,
    devices: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> dict[str, str]:
    """Searches and trains whatever is not finished; returns row name -> error of rows that failed.

    Systems run first, ablations after the search of the full model. Other rows go on when one fails.

    Args:
      out: folder of the comparison.
      prepared: prepared folder.
      comparison: what to train.
      jobs: rows at a time, each in a process of its own.
      devices: values of CUDA_VISIBLE_DEVICES; a row takes one that is free. Empty leaves it alone.
      log: takes lines for people.
    """
    failed: dict[str, str] = {}
    free: queue.Queue[str | None] = queue.Queue()
    for place in range(jobs):
        free.put(devices[place % len(devices)] if devices else None)

    def train(row: Row) -> float:
        device = free.get()
        try:
            # A process a row: TensorFlow's memory ends with it, and a killed one takes no other along.
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                work = (out, prepared, comparison, row, jobs, device)
                return process.submit(train_row, *work).result()
        finally:
            free.put(device)

    rows = comparison.rows()
    stages = (
        [row for row in rows if row.searched_as == row.name],
        [row for row in rows if row.searched_as != row.name],
    )
    for stage in stages:
        threads = ThreadPoolExecutor(jobs)
        futures = {}
        for row in stage:
            if row.searched_as in failed:
                failed[row.name] = f"the search of {row.searched_as!r} failed"
            else:
                futures[threads.submit(train, row)] = row
        try:
            for future in as_completed(futures):
                row = futures[future]
                try:
                    log(f"{row.name}: done ({future.result():.0f} s in this call)")
                except Exception as error:  # of any kind: the other rows are still wanted
                    failed[row.name] = f"{type(error).__name__}: {error}"
                    log(f"{row.name}: FAILED, {failed[row.name]}")
        finally:
            # Ctrl-C ends the running processes too; what waits must not begin.
            threads.shutdown(wait=True, cancel_futures=True)
    return failed


def train_row(
    out: Path,
    prepared: Path,
    comparison: Comparison,
    row: Row,
    jobs: int = 1,
    device: str | None = None,
) -> float:
    """Searches and trains one row in this process, one of ``jobs``; returns the seconds it took."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if jobs > 1:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    # TensorFlow loads here, in the process of the row, with the devices that it may see.
    import tensorflow as tf

    from loopctr_tf.compare.search import search

    tf.get_logger().setLevel("ERROR")  # many models in one process are traced many times

    start, folder = time.perf_counter(), row_folder(out, row)
    folder.mkdir(parents=True, exist_ok=True)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = search(folder, prepared, comparison, row, log) if row.searched_as == row.name else None
    if found is not None:
        write_json(folder / CHOICE, found)
    choice = chosen(out, row)["choice"]
    for seed in range(1, comparison.protocol.seeds + 1):
        _train_seed(out, prepared, comparison, row, choice, seed, log)
    return time.perf_counter() - start


def chosen(out: Path, row: Row) -> dict[str, Any]:
    """What the search chose for a row; UsageError where it did not end."""
    path = row_folder(out, row._replace(name=row.searched_as)) / CHOICE
    if not path.is_file():
        raise UsageError(
            f"the search of {row.searched_as!r} did not finish: no {str(path)!r}; run again"
        )
    return json.loads(path.read_text())


def _train_seed(out, prepared, comparison, row, choice, seed, log) -> None:
    """One final training; the test split is read once, after it."""
    import tf_keras as keras

    from loopctr_tf.bench.report import silent
    from loopctr_tf.training.run_folder import CONFIG, METRICS, load_run
    from loopctr_tf.training.settings import RunConfig
    from loopctr_tf.training.train import train

    run, config = seed_folder(out, row, seed), comparison.config(row, choice, seed)
    start = time.perf_counter()
    same = (run / METRICS).is_file() and RunConfig.load(run / CONFIG).to_dict() == config.to_dict()
    if same and (run / "test.npz").is_file():
        return
    if not same:
        if (run / "test.npz").is_file():
            log(f"{row.name}: seed {seed} was trained with other settings; training again")
        shutil.rmtree(run, ignore_errors=True)
        train(prepared, run, config, verbose=0, log=silent)
        shutil.rmtree(run / "checkpoints")  # of every epoch; the best weights stay
    model, _ = load_run(run)
    for split in SPLITS:
        score_split(model, prepared, split, run / f"{split}.npz")
    keras.backend.clear_session()
    log(f"{row.name}: seed {seed} trained and scored ({time.perf_counter() - start:.0f} s)")


def score_split(model, prepared: Path, split: str, path: Path) -> None:
    """Writes labels, numbers of groups, probabilities [n, heads], heads and history lengths."""
    from loopctr_tf.evaluation.predict import predict
    from loopctr_tf.features.dataset import read_dataset

    names = [sequence.length_name for sequence in model.schema.sequences]
    lengths = []

    def batches():
        dataset = read_dataset(prepared / split, model.schema, batch_size=1024, group=True)
        for features, label, *_ in dataset:
            lengths.append(sum(features[name].numpy() for name in names))
            yield features, label

    predictions = predict(model, batches())
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        labels=predictions.labels,
        groups=np.unique(predictions.groups, return_inverse=True)[1],
        probabilities=predictions.probabilities,
        heads=np.array(predictions.heads),
        history=np.concatenate(lengths),
    )
    os.replace(partial, path)


def facts_of(prepared: Path) -> dict[str, Any]:
    """What tells one prepared folder from another: row counts, protocol, and a digest of its contents.

    The digest is of the schema, its vocabularies and ``stats.json``.
    """
    stats = read_stats(prepared)
    contents = json_text({"schema": Schema.load(prepared).to_dict(), "stats": stats})
    return {
        "prepared": str(prepared),
        "rows": stats["rows"],
        "protocol": stats.get("protocol"),
        "sha256": hashlib.sha256(contents.encode()).hexdigest(),
    }
