"""KuaiVideo_x1 as a prepared data set: which short videos a user clicks, with the videos' looks.

The rows bring their own histories. The README beside this script and ``data/bars.py`` say how rows are
split and histories cut.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

# bars.py and recipe_command.py lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bars import FILES, BarsRows, ByTime, LastRows
from kuaivideo_vectors import read_vectors
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

from loopctr_tf.features.prepared import SHARD_ROWS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.prepare import prepare_rows
from loopctr_tf.prepare.reading import Rejects, TableReader, WantedColumn

TEMPLATE = Path(__file__).with_name("schema.yaml")
VECTORS = "item_visual_emb_dim64.h5"
ROWS = {"train": 10_931_092, "test": 2_730_291}
TIME = "timestamp"
WANTED = [
    WantedColumn("is_click", "binary", required=True),
    WantedColumn("user_id", "string", required=True),
    WantedColumn("item_id", "string", required=True),
    WantedColumn("pos_items", "string", separator="^"),
    WantedColumn("neg_items", "string", separator="^"),
]
LOOKS = {"item_visual": "item_id", "pos_visual": "pos_items", "neg_visual": "neg_items"}


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
      raw: folder with train.csv, test.csv and the visual embeddings.
      out: must not exist.
      protocol: "honest" or "bars".
      min_count: users and videos in fewer training rows and histories count as unknown.
      skip_bad: leave bad rows out, count them, and keep them in rejected.csv.
      workers: processes; None takes all cores.
      progress: show bars.
      warn: takes a line where a file has other rows than the publisher counts.
      shard_rows: most rows a shard.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, a bad row, or an ``out`` that exists.
    """
    raw = Path(raw)
    timed = TIME in TableReader(raw / FILES["train"], []).column_types()
    wanted = [*WANTED, WantedColumn(TIME, "int64", required=True)] if timed else WANTED
    with tempfile.TemporaryDirectory() as scratch:
        rejects = Rejects(Path(scratch) / "rejected.csv") if skip_bad else None
        rows = BarsRows(
            raw,
            wanted,
            protocol,
            valid=ByTime(TIME) if timed else LastRows(),
            keep_first={"pos_items": 100, "neg_items": 100},
            published=ROWS,
            change=_with_looks,
            rejects=rejects,
            warn=warn,
        )
        schema, facts = _with_vectors(Schema.load(TEMPLATE), raw / VECTORS)
        return prepare_rows(
            schema,
            rows,
            out,
            tables={name: {"min_count": min_count} for name in ("user", "item")},
            facts={"source": "KuaiVideo_x1", **rows.facts, **facts},
            rejects=rejects,
            workers=workers,
            progress=progress,
            shard_rows=shard_rows,
        )


def _with_looks(table: pa.Table) -> pa.Table:
    for name, source in LOOKS.items():
        table = table.append_column(name, table[source])
    return table


def _with_vectors(schema: Schema, path: Path) -> tuple[Schema, dict[str, Any]]:
    """The schema in which ``visual`` knows all videos of the file, and what is in the file."""
    ids, vectors = read_vectors(path)
    tables = [
        table.replace(vocabulary=ids, vectors=vectors) if table.name == "visual" else table
        for table in schema.tables
    ]
    facts = {"visual_vectors": {"videos": len(ids), "width": vectors.shape[1]}}
    return schema.replace(tables=tables), facts


@click.command(cls=Recipe)
@raw_option(f"train.csv, test.csv and {VECTORS} of KuaiVideo_x1")
@OUT
@PROTOCOL
@min_count_option(10)
@SKIP_BAD
@WORKERS
def main(raw, out, protocol, min_count, skip_bad, workers):
    """Prepare KuaiVideo_x1: which short videos a user clicks.

    \b
    Example:
      python data/kuaivideo/prepare.py --raw ~/KuaiVideo_x1 --out build/kuaivideo

    README.md beside this script says where the files come from and describes the columns.
    """
    stats = prepare(raw, out, protocol, min_count, skip_bad, workers, progress=True, warn=warn)
    report(out, stats, f"protocol {protocol}")


if __name__ == "__main__":
    main()
