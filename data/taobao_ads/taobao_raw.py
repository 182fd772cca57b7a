"""The publisher's four files as one log of events: impressions with ad and user, and behaviors."""

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from recipe_tables import Read, Tables, compare

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.duckdb_engine import DuckDBEngine
from loopctr_tf.prepare.files import MixedFiles
from loopctr_tf.prepare.reading import read_table
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.statements import kept_rows
from loopctr_tf.prepare.typed import WantedColumn

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

_KEY = {"type": "int64", "required": True}
TABLES = {
    "impressions": (
        "raw_sample.csv",
        WantedColumn("user", **_KEY),
        WantedColumn("time_stamp", **_KEY),
        WantedColumn("adgroup_id", **_KEY),
        WantedColumn("pid", "string"),
        WantedColumn("clk", "binary", required=True),
    ),
    "ads": (
        "ad_feature.csv",
        WantedColumn("adgroup_id", **_KEY),
        *(WantedColumn(name, "int64") for name in AD),
        WantedColumn("price", "float32"),
    ),
    "profiles": (
        "user_profile.csv",
        WantedColumn("userid", **_KEY),
        *(WantedColumn(name, "int64") for name in PROFILE),
    ),
    "behaviors": (
        "behavior_log.csv",
        WantedColumn("user", **_KEY),
        WantedColumn("time_stamp", **_KEY),
        WantedColumn("btag", "string", required=True),
        WantedColumn("cate", "int64"),
        WantedColumn("brand", "int64"),
    ),
}
FILES = tuple(name for name, *_ in TABLES.values())
ROWS = {
    "rows of raw_sample.csv": 26_557_961,
    "rows of ad_feature.csv": 846_811,
    "rows of user_profile.csv": 1_061_768,
    "rows of behavior_log.csv": 723_268_134,
}
"""As published."""

# Only behaviors before the last impression of their user can be in a history.
PEOPLE = """
SELECT user, max(time_stamp) AS last FROM typed_impressions WHERE __bad_reason IS NULL GROUP BY user
"""
# An event has one category and brand: those of the ad, or those of the behavior.
IMPRESSIONS = f"""
SELECT 'impression' AS kind, i.user AS userid, i.time_stamp, clk, pid, i.adgroup_id,
  {", ".join(AD)}, price, {", ".join(PROFILE)},
  unnest(CASE WHEN i.time_stamp >= {TEST_FROM} THEN {{test}} WHEN i.time_stamp >= {VALID_FROM}
    THEN {{valid}} ELSE ['train'] END) AS split
FROM typed_impressions i LEFT JOIN kept_ads a ON i.adgroup_id = a.adgroup_id
LEFT JOIN kept_profiles p ON i.user = p.userid WHERE i.__bad_reason IS NULL
"""
# Of one second the order of the file decides.
BEHAVIORS = """
SELECT * EXCLUDE place FROM (
  SELECT 'behavior' AS kind, user AS userid, time_stamp, 0 AS clk, 'behavior' AS split, btag,
    cate AS cate_id, brand, b.__place AS place
  FROM typed_behaviors b JOIN people USING (user) WHERE time_stamp < last AND b.__bad_reason IS NULL
) ORDER BY place
"""
_BATCH = 1 << 16


def reader(raw: Path, protocol: str, workers: int, memory: str = "2GB") -> Read:
    """A function that makes the log, for ``recipe_tables.prepare_tables``.

    The last day is the test split. The honest protocol validates on the day before it, the other one on
    the test split, as BARS does: there the impressions of that day are twice in the log.

    Args:
      raw: folder with the four files.
      protocol: "honest" or "bars".
      workers: threads.
      memory: limit of DuckDB's memory.
    """
    return partial(_read, raw, protocol == "honest", workers, memory)


def _read(
    raw: Path, honest: bool, workers: int, memory: str, folder: Path, rejects: Rejects, progress
) -> Tables:
    found = {}
    with DuckDBEngine(folder / "work", workers, memory) as engine:
        for table, (file, *wanted) in TABLES.items():
            read = read_table(engine, table, MixedFiles(raw / file, file), wanted, rejects)
            found[f"rows of {file}"] = read.read - read.bad
        engine.create("kept_ads", kept_rows("ads", "adgroup_id"))
        engine.create("kept_profiles", kept_rows("profiles", "userid"))
        engine.create("people", PEOPLE)
        valid, test = (["valid"], ["test"]) if honest else (["train"], ["valid", "test"])
        log = [folder / "impressions.parquet", folder / "behaviors.parquet"]
        queries = IMPRESSIONS.format(valid=valid, test=test), BEHAVIORS
        for path, query in zip(log, queries, strict=True):
            _write(engine.batches(query, _BATCH), path, progress)
    facts: dict[str, Any] = {
        "protocol": "honest" if honest else "bars",
        "validation": "the day before the last" if honest else "the test split",
        **compare(ROWS, found),
    }
    return Tables(log, facts=facts)


def _write(tables, path: Path, progress) -> None:
    """Writes tables to a Parquet file as they come."""
    first = next(tables, None)
    if first is None:
        raise UsageError(f"no {path.stem} are left of the files; give whole ones")
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            progress(len(table))
