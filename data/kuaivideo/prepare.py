"""KuaiVideo_x1 as a prepared data set: which short videos a user clicks, with the videos' looks.

The rows bring their own histories. The README beside this script and ``data/bars.py`` say how rows are
split and histories cut.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

# The modules that recipes share lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bars import FILES, ByTime, LastRows, prepare_bars
from kuaivideo_vectors import read_vectors
from recipe_command import recipe, report

from loopctr_tf.features.prepared import SHARD_ROWS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.files import MixedFiles
from loopctr_tf.prepare.typed import WantedColumn

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
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Writes the prepared folder ``out``.

    Args:
      raw: folder with train.csv, test.csv and the visual embeddings.
      protocol: "honest" or "bars".
      min_count: users and videos in fewer training rows and histories count as unknown.
      out, skip_bad, workers, progress, shard_rows: as for ``prepare_bars``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for absent or malformed files, a bad row, or an existing ``out``.
    """
    raw = Path(raw)
    timed = TIME in MixedFiles(raw / FILES["train"], FILES["train"]).columns
    schema, facts = _with_vectors(Schema.load(TEMPLATE), raw / VECTORS)
    return prepare_bars(
        schema,
        raw,
        out,
        [*WANTED, WantedColumn(TIME, "int64", required=True)] if timed else WANTED,
        protocol,
        valid=ByTime(TIME) if timed else LastRows(),
        keep_first={"pos_items": 100, "neg_items": 100},
        published=ROWS,
        change=_with_looks,
        facts={"source": "KuaiVideo_x1", **facts},
        min_count=min_count,
        skip_bad=skip_bad,
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


@recipe(f"train.csv, test.csv and {VECTORS} of KuaiVideo_x1", protocol=True, min_count=10)
def main(out, **options):
    """Prepare KuaiVideo_x1: which short videos a user clicks.

    \b
    Example:
      python data/kuaivideo/prepare.py --raw ~/KuaiVideo_x1 --out build/kuaivideo

    README.md beside this script says where the files come from and describes the columns.
    """
    stats = prepare(out=out, **options, progress=True)
    report(out, stats, f"protocol {stats['protocol']}")


if __name__ == "__main__":
    main()
