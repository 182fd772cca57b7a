"""The comparison from beginning to end, resumed where an earlier call stopped."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from loopctr_tf.compare import report
from loopctr_tf.compare.protocol import Comparison
from loopctr_tf.compare.results import gather
from loopctr_tf.compare.runs import facts_of, train_rows
from loopctr_tf.errors import UsageError
from loopctr_tf.files import write_json

SETTINGS = "compare.yaml"
EFFICIENCY = "efficiency.json"
_MAY_GROW = {("protocol", "seeds"), ("protocol", "trials")}


def compare(
    prepared: str | Path,
    out: str | Path,
    comparison: Comparison,
    jobs: int = 1,
    devices: tuple[str, ...] = (),
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains, measures and reports; what ``out`` already holds of the same comparison is not done again.

    Args:
      prepared: prepared folder.
      out: new folder, or one of an earlier call with the same settings; models, seeds and trials may be
        more than before.
      comparison: what to compare.
      jobs: systems trained at a time.
      devices: values of CUDA_VISIBLE_DEVICES, dealt out to the jobs.
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
    log("measuring what scoring costs")
    systems = [row.name for row in rows if row.kind == "system"]
    measured = Comparison(systems, comparison.protocol, comparison.training, comparison.models)
    # In a process of its own, whose memory holds nothing else.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        efficiency = pool.submit(_measure, out, prepared, measured).result()
    write_json(out / EFFICIENCY, efficiency)
    from loopctr_tf.evaluation.references import reference_metrics

    results = {
        **comparison.to_dict(),
        "data": facts,
        "failed": failed,
        "machine": efficiency["machine"],
        "batch_size": efficiency["batch_size"],
        "references": reference_metrics(prepared),
        **gather(out, comparison, rows, efficiency),
    }
    report.write(out, results)
    return results


def _measure(out, prepared, comparison):
    from loopctr_tf.compare.efficiency import measure

    return measure(out, prepared, comparison)


def _claim(out: Path, comparison: Comparison, facts: dict[str, Any]) -> None:
    """Makes ``out``, or checks that it holds the same comparison."""
    path, settings = out / SETTINGS, comparison.to_dict()
    if out.exists() and not path.is_file():
        raise UsageError(f"{str(out)!r} exists and holds no comparison; remove it or name another")
    if path.is_file():
        before = yaml.safe_load(path.read_text())
        if before["data"]["schema_sha256"] != facts["schema_sha256"]:
            raise UsageError(
                f"{str(out)!r} compares on {before['data']['prepared']!r}, which has another schema; "
                "name another folder"
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
    path.write_text(yaml.safe_dump({"data": facts, **settings}, sort_keys=False), encoding="utf-8")
