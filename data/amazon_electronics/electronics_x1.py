"""The rows of BARS's AmazonElectronics_x1 files, split by either protocol."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.building.reading import TableReader, Wanted
from loopctr_tf.building.rejects import Rejects

FILES = ("train.csv", "test.csv")
HISTORIES = ("item_history", "cate_history")
MAX_LENGTH = 100
"""``max_length`` of schema.yaml, and BARS's."""

WANTED = (
    Wanted("label", "binary", required=True),
    Wanted("user_id", "string", required=True),
    Wanted("item_id", "string", required=True),
    Wanted("cate_id", "string"),
    *(Wanted(name, "string", separator="^") for name in HISTORIES),
)

HONEST_RULE = (
    "test is test.csv, each user's last event; valid are the rows of train.csv with the longest history "
    "of their user, which is the last event but one; the rest is train, and all rows of a user whose "
    "histories in train.csv are of one length"
)
BARS_RULE = "test is test.csv, and valid is test.csv too: selecting on valid is selecting on test"


class X1Rows:
    """Rows for ``prepare_rows``.

    train.csv is shuffled and has no time; what tells the order of a user's rows is the length of the
    history, which is whole in these files: the k-th event has k - 1 before it.

    Args:
      folder: with train.csv and test.csv.
      protocol: "honest" or "bars".
      rejects: takes bad rows.
    """

    def __init__(self, folder: Path, protocol: str, rejects: Rejects):
        self._train, self._test = (
            TableReader(folder / name, WANTED, rejects=rejects) for name in FILES
        )
        self._bars = protocol == "bars"
        self._longest = None if self._bars else _longest(self._train)

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of a split, in the order of the files."""
        for table in self._test if split == "test" or self._of_test(split) else self._train:
            if split != "test" and not self._bars:
                valid = _lengths(table) == table["user_id"].to_pandas().map(self._longest)
                table = table.filter(pa.array(valid.to_numpy() == (split == "valid")))
            if self._bars:
                # Without this the most recent ones would be kept.
                for name in HISTORIES:
                    place = table.column_names.index(name)
                    first = pc.list_slice(table[name], 0, MAX_LENGTH)
                    table = table.set_column(place, name, first)
            yield table

    def _of_test(self, split: str) -> bool:
        return self._bars and split == "valid"


def _lengths(table: pa.Table) -> np.ndarray:
    return pc.list_value_length(table["item_history"]).to_numpy()


def _longest(reader: TableReader) -> pd.Series:
    """For each user the length of the longest history, or -1 where all are of one length."""
    bounds = pd.DataFrame({"min": [], "max": []}, dtype=np.int64)
    for table in reader:
        lengths = pd.Series(_lengths(table)).groupby(table["user_id"].to_pandas())
        bounds = pd.concat([bounds, lengths.agg(["min", "max"])]).groupby(level=0)
        bounds = bounds.agg({"min": "min", "max": "max"})
    return bounds["max"].where(bounds["max"] > bounds["min"], -1)
