"""Taobao's display ads as a prepared data set: does a user click this ad?

The publisher's own four files, whose histories are built here, or TaobaoAd_x1, which brings them. The
README beside this script says how rows are split and histories cut.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

# bars.py and recipe_command.py lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import taobao_raw
import taobao_x1
from bars import FILES as X1_FILES
from bars import PROTOCOLS, BarsRows, LastRows
from recipe_command import (
    OUT,
    PROTOCOL,
    SKIP_BAD,
    WORKERS,
    Recipe,
    min_count_option,
    raw_option,
    report,
    warn,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SHARD_ROWS
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import require_new
from loopctr_tf.prepare.prepare import prepare_rows
from loopctr_tf.prepare.reading import Rejects

TEMPLATE = Path(__file__).with_name("schema.yaml")
HISTORY = 50


def prepare(
    raw: str | Path,
    out: str | Path,
    protocol: str = "honest",
    min_count: int = 10,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
    warn: Callable[[str], Any] = print,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Writes the prepared folder ``out``.

    Args:
      raw: folder with raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv, or with
        train.csv and test.csv of TaobaoAd_x1.
      out: must not exist. Temporary files lie beside it.
      protocol: "honest" or "bars".
      min_count: values in fewer training rows and histories count as unknown.
      skip_bad: leave bad rows out, count them, and keep them in rejected.csv.
      workers: processes; None takes all cores.
      progress: show bars.
      warn: takes a line where a file has other rows than the publisher counts.
      shard_rows: most rows a shard.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, a bad row, an unknown protocol, or an ``out``
        that exists.
    """
    raw, out, schema = Path(raw), require_new(out), Schema.load(TEMPLATE)
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol is {protocol!r}; choose {', '.join(PROTOCOLS)}")
    is_x1 = _is_x1(raw)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.partial-") as scratch:
        rejects = Rejects(Path(scratch) / "rejected.csv") if skip_bad else None
        if is_x1:
            source = "TaobaoAd_x1"
            rows = BarsRows(
                raw,
                taobao_x1.WANTED,
                protocol,
                valid=LastRows(),
                published=taobao_x1.ROWS,
                change=taobao_x1.aligned,
                rejects=rejects,
                warn=warn,
            )
        else:
            source = "the publisher's files"
            features = [feature for feature in schema.features if feature.name != "btag"]
            schema = schema.replace(features=features)
            rows = taobao_raw.RawRows(
                raw, Path(scratch), protocol, HISTORY, rejects, warn, progress
            )
        return prepare_rows(
            schema,
            rows,
            out,
            tables={table.name: {"min_count": min_count} for table in schema.tables},
            facts={"source": source, **rows.facts},
            rejects=rejects,
            workers=workers,
            progress=progress,
            shard_rows=shard_rows,
        )


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


@click.command(cls=Recipe)
@raw_option(
    "raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv, or with train.csv and "
    "test.csv of TaobaoAd_x1"
)
@OUT
@PROTOCOL
@min_count_option(10)
@SKIP_BAD
@WORKERS
def main(raw, out, protocol, min_count, skip_bad, workers):
    """Prepare Taobao's ads: does a user click this ad?

    \b
    Example:
      python data/taobao_ads/prepare.py --raw ~/taobao --out build/taobao_ads

    README.md beside this script says where the files come from and describes the columns.
    """
    stats = prepare(raw, out, protocol, min_count, skip_bad, workers, progress=True, warn=warn)
    report(out, stats, f"protocol {protocol}")


if __name__ == "__main__":
    main()
