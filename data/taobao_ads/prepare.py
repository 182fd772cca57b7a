"""Taobao's display ads as a prepared data set: does a user click this ad?

The publisher's own four files, whose histories are built here, or TaobaoAd_x1, which brings them. The
README beside this script says how rows are split and histories cut.
"""

import sys
from pathlib import Path
from typing import Any

# The modules that recipes share lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import taobao_raw
import taobao_x1
from bars import FILES as X1_FILES
from bars import PROTOCOLS, LastRows, prepare_bars
from recipe_command import recipe, report
from recipe_tables import prepare_tables

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SHARD_ROWS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.workers import worker_count

TEMPLATE = Path(__file__).with_name("schema.yaml")


def prepare(
    raw: str | Path,
    out: str | Path,
    protocol: str = "honest",
    min_count: int = 10,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Writes the prepared folder ``out``.

    Args:
      raw: folder with raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv, or with
        train.csv and test.csv of TaobaoAd_x1.
      out: must not exist. Temporary files lie beside it.
      protocol: "honest" or "bars".
      min_count: values with fewer occurrences in training rows and their histories count as unknown.
      skip_bad: leave bad rows out, count them, and list them.
      workers: processes; None means all cores.
      progress: whether to show progress bars.
      shard_rows: maximum rows of a shard.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for absent or malformed files, a bad row, an unknown protocol, or an existing ``out``.
    """
    raw = Path(raw)
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol is {protocol!r}; choose {', '.join(PROTOCOLS)}")
    settings = {
        "skip_bad": skip_bad,
        "workers": worker_count(workers),
        "progress": progress,
        "shard_rows": shard_rows,
    }
    if _is_x1(raw):
        return prepare_bars(
            Schema.load(TEMPLATE),
            raw,
            out,
            taobao_x1.WANTED,
            protocol,
            valid=LastRows(),
            published=taobao_x1.ROWS,
            change=taobao_x1.aligned,
            facts={"source": "TaobaoAd_x1"},
            min_count=min_count,
            **settings,
        )

    def change(schema: dict[str, Any]) -> None:
        schema["features"] = [f for f in schema["features"] if f["name"] != "btag"]
        schema["build"]["tables"] = {name: {"min_count": min_count} for name in schema["tables"]}

    read = taobao_raw.reader(raw, protocol, settings["workers"])
    facts = {"source": "the publisher's files"}
    return prepare_tables(TEMPLATE, out, read, change=change, facts=facts, **settings)


def _is_x1(raw: Path) -> bool:
    """Whether the folder holds TaobaoAd_x1, and not the publisher's own files."""
    if all((raw / name).is_file() for name in taobao_raw.FILES):
        return False
    if all((raw / name).is_file() for name in X1_FILES.values()):
        return True
    raise UsageError(
        f"{str(raw)!r} holds neither {', '.join(taobao_raw.FILES)} nor "
        f"{' and '.join(X1_FILES.values())}; name the folder with one of these sets of files"
    )


@recipe(
    "raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv, or with train.csv and "
    "test.csv of TaobaoAd_x1",
    protocol=True,
    min_count=10,
)
def main(out, **options):
    """Prepare Taobao's ads: does a user click this ad?

    \b
    Example:
      python data/taobao_ads/prepare.py --raw ~/taobao --out build/taobao_ads

    README.md beside this script says where the files come from and describes the columns.
    """
    stats = prepare(out=out, **options, progress=True)
    report(out, stats, f"protocol {stats['protocol']}")


if __name__ == "__main__":
    main()
