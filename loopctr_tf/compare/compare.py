"""The comparison from beginning to end, resumed where an earlier call stopped."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loopctr_tf.compare import report
from loopctr_tf.compare.protocol import Comparison
from loopctr_tf.compare.results import gather, scored
from loopctr_tf.compare.runs import facts_of, seed_folder, train_rows
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.references import reference_scores
from loopctr_tf.files import write_json, write_text
from loopctr_tf.version import __version__

SETTINGS = "compare.yaml"
EFFICIENCY = "efficiency.json"
_MAY_GROW = {("protocol", "seeds"), ("protocol", "trials")}


def compare(
    prepared: str | Path,
    out: str | Path,
    comparison: Comparison,
    jobs: int = 1,
    devices: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains, measures and reports; what ``out`` already holds of the same comparison is not done again.

    Args:
      prepared: prepared folder.
      out: new folder, or one of an earlier call with the same settings; models, seeds and trials may be
        more than before.
      comparison: what to compare.
      jobs: systems trained at a time.
      devices: values of CUDA_VISIBLE_DEVICES; a system takes one that is free.
      log: takes lines for people.

    Returns:
      What ``results.json`` holds.

    Raises:
      UsageError: for a folder of another comparison or other data, and where no system finished.
    """
    prepared, out = Path(prepared), Path(out)
    facts = facts_of(prepared)
    _claim(out, comparison, facts)
    failed = train_rows(out, prepared, comparison, jobs, devices, log)
    rows = [row for row in comparison.rows() if row.name not in failed]
    if not rows:
        raise UsageError("no system finished: " + "; ".join(f"{n}: {e}" for n, e in failed.items()))
    missing = {}
    try:
        labels, _, references = reference_scores(prepared)
    except UsageError as error:
        labels, references, missing["references"] = None, {}, str(error)
    log("measuring what scoring costs")
    systems = [row.name for row in rows if row.kind == "system"]
    settings = {name: comparison.models[name] for name in systems if name in comparison.models}
    measured = Comparison(systems, comparison.protocol, comparison.training, settings)
    efficiency: dict[str, Any] = {"heads": []}
    # In a process of its own, whose memory holds nothing else.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            efficiency = pool.submit(_measure, out, prepared, measured).result()
        except Exception as error:  # of any kind: the trained systems are worth a report without it
            missing["costs"] = f"{type(error).__name__}: {error}"
    write_json(out / EFFICIENCY, efficiency)
    gathered = gather(out, comparison, rows, efficiency["heads"], references)
    read = scored(seed_folder(out, rows[0], 1), "test")
    if labels is not None and not np.array_equal(labels, read.labels):
        raise UsageError(
            f"{str(prepared)!r} changed while its systems were compared; use a new folder"
        )
    results = {
        **comparison.to_dict(),
        "made": {"date": f"{date.today():%Y-%m-%d}", "version": __version__},
        "data": facts,
        "failed": failed,
        "missing": missing,
        "machine": efficiency.get("machine"),
        "batch_size": efficiency.get("batch_size"),
        **gathered,
    }
    report.write(out, results)
    return results


def _measure(out, prepared, comparison):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from loopctr_tf.compare.efficiency import measure

    tf.get_logger().setLevel("ERROR")  # every head of every system is traced
    return measure(out, prepared, comparison)


def _claim(out: Path, comparison: Comparison, facts: dict[str, Any]) -> None:
    """Makes ``out``, or checks that it holds the same comparison."""
    path, settings = out / SETTINGS, comparison.to_dict()
    if out.exists() and not path.is_file():
        raise UsageError(f"{str(out)!r} exists and holds no comparison; remove it or name another")
    if path.is_file():
        before = yaml.safe_load(path.read_text())
        if before["data"]["sha256"] != facts["sha256"]:
            raise UsageError(
                f"{str(out)!r} compares on {before['data']['prepared']!r} as it was then, and "
                f"{facts['prepared']!r} holds other data; name another folder"
            )
        if before["version"] != __version__:
            raise UsageError(
                f"{str(out)!r} was begun by version {before['version']}, and this is {__version__}, "
                "whose defaults may differ; name another folder"
            )
        for section in ("protocol", "training"):
            for name, value in settings[section].items():
                old = before[section].get(name)
                if old != value and ((section, name) not in _MAY_GROW or value < old):
                    raise UsageError(
                        f"{section}.{name} is {value!r}, and {old!r} in {str(path)!r}; name another "
                        "folder or take the old value"
                    )
        for name, old in before["models"].items():
            if settings["models"].get(name, old) != old:
                raise UsageError(
                    f"models.{name} is {settings['models'][name]!r}, and {old!r} in {str(path)!r}; name "
                    "another folder or take the old settings"
                )
            settings["models"].setdefault(name, old)
    out.mkdir(parents=True, exist_ok=True)
    claimed = {"version": __version__, "data": facts, **settings}
    write_text(path, yaml.safe_dump(claimed, sort_keys=False))
