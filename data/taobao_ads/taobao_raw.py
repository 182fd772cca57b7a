"""The publisher's four files as rows for ``prepare_rows``: impressions, ads, users, behaviors."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from taobao_histories import PARTS, Histories
from tqdm import tqdm

from loopctr_tf.prepare.reading import Rejects, TableReader, WantedColumn

FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
ROWS = dict(zip(FILES, (26_557_961, 846_811, 1_061_768, 723_268_134), strict=True))
DAY = 86_400
FIRST_DAY = 1_494_000_000
"""2017-05-06 00:00 in China, when the eight days of impressions begin."""
VALID_FROM, TEST_FROM = FIRST_DAY + 6 * DAY, FIRST_DAY + 7 * DAY
PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
AD = ("cate_id", "campaign_id", "customer", "brand")
_IMPRESSIONS = [
    WantedColumn("user", "int64", required=True),
    WantedColumn("time_stamp", "int64", required=True),
    WantedColumn("adgroup_id", "int64", required=True),
    WantedColumn("pid", "string"),
    WantedColumn("clk", "binary", required=True),
]
_BEHAVIORS = [
    WantedColumn("user", "int64", required=True),
    WantedColumn("time_stamp", "int64", required=True),
    WantedColumn("btag", "string", required=True),
    WantedColumn("cate", "int64"),
    WantedColumn("brand", "int64"),
]


class RawRows:
    """Impressions with ad, user and history, for ``prepare.prepare_rows``.

    The last day is the test split. The honest protocol validates on the day before it, the other one on
    the test split, as BARS does.

    Args:
      raw: folder with the four files.
      scratch: folder for temporary files.
      protocol: "honest" or "bars".
      most: behaviors of a history.
      rejects: takes the bad rows; None makes the first one an error.
      warn: takes a line for people, where a file has other rows than the publisher's.
      progress: show how many behaviors were read.
      parts: temporary files; more of them take less memory.

    Attributes:
      facts: for ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, or a bad row.
    """

    def __init__(
        self,
        raw: Path,
        scratch: Path,
        protocol: str,
        most: int,
        rejects: Rejects | None = None,
        warn: Callable[[str], Any] = print,
        progress: bool = False,
        parts: int = PARTS,
    ):
        honest = protocol == "honest"
        test = (TEST_FROM, None)
        self._spans = {
            "train": (None, VALID_FROM if honest else TEST_FROM),
            "valid": (VALID_FROM, TEST_FROM) if honest else test,
            "test": test,
        }
        self._paths = {name: raw / name for name in FILES}
        impressions, behaviors = (
            TableReader(self._paths[name], wanted, rejects=rejects)
            for name, wanted in (("raw_sample.csv", _IMPRESSIONS), ("behavior_log.csv", _BEHAVIORS))
        )
        self._ads = self._table("ad_feature.csv", "adgroup_id", AD, rejects, numbers=("price",))
        self._users = self._table("user_profile.csv", "userid", PROFILE, rejects)
        with tqdm(desc="behavior_log.csv", unit=" rows", disable=not progress) as bar:
            self._histories = Histories(scratch, impressions, behaviors, most, parts, bar.update)
        found = self._histories.facts
        counts = (found["impressions"], len(self._ads), len(self._users), found["behaviors"])
        self.facts: dict[str, Any] = {
            "protocol": protocol,
            "validation": "the day before the last" if honest else "the test split",
            "row_counts": {
                name: {"found": count, "published": ROWS[name]}
                for name, count in zip(FILES, counts, strict=True)
            },
            "users": found["users"],
            "behaviors_in_a_history": found["behaviors_in_a_history"],
        }
        for name, count in self.facts["row_counts"].items():
            if count["found"] != count["published"]:
                warn(
                    f"WARNING: {str(self._paths[name])!r} gave {count['found']:,} rows and its "
                    f"publisher's has {count['published']:,}; figures from it are not comparable with "
                    "published ones"
                )

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of a split, by user and time."""
        for rows in self._histories.batches(*self._spans[split]):
            yield self._joined(rows)

    def _joined(self, rows: pa.Table) -> pa.Table:
        """The columns of the schema. What has no row in a table is missing there."""
        columns = {
            "clk": rows["clk"],
            "userid": rows["user"].cast(pa.string()),
            "pid": rows["pid"],
            "adgroup_id": rows["adgroup_id"].cast(pa.string()),
        }
        for key, table in (("user", self._users), ("adgroup_id", self._ads)):
            places = pc.index_in(rows[key], value_set=table["key"])
            for name in table.column_names[1:]:
                columns[name] = table[name].take(places)
        texts = pa.list_(pa.string())
        for name, source in (("cate_his", "cate"), ("brand_his", "brand"), ("btag_his", "btag")):
            columns[name] = rows[source].cast(texts)
        return pa.table(columns)

    def _table(self, name: str, key: str, texts, rejects, numbers=()) -> pa.Table:
        """A file in memory: its key, ids as text, numbers."""
        # The publisher writes "new_user_class_level " with a space behind it.
        written = {c.strip(): c for c in TableReader(self._paths[name], []).column_types()}
        wanted = [WantedColumn(written.get(key, key), "int64", required=True)]
        wanted += [WantedColumn(written.get(column, column), "int64") for column in texts]
        wanted += [WantedColumn(written.get(column, column), "float32") for column in numbers]
        reader = TableReader(self._paths[name], wanted, rejects=rejects)
        empty = pa.schema([(c.name, c.arrow_type) for c in wanted]).empty_table()
        table = pa.concat_tables([empty, *reader]).combine_chunks()
        columns = [table[0], *(table[i + 1].cast(pa.string()) for i in range(len(texts)))]
        columns += [table[i + 1 + len(texts)] for i in range(len(numbers))]
        return pa.table(columns, names=["key", *texts, *numbers])
