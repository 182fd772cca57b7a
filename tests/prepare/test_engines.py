"""DuckDB and Spark give the same prepared folder."""

import pytest

from loopctr_tf.prepare.prepare import prepare_events
from tests.prepare.logs import negatives_dict, schema_dict, write_log
from tests.prepare.spark import require_spark, small_spark
from tests.prepare.test_prepare import folder_bytes


@pytest.mark.slow
@pytest.mark.parametrize(("make", "kind"), [(schema_dict, "csv"), (negatives_dict, "parquet")])
def test_both_engines_write_the_same_bytes(tmp_path, make, kind):
    require_spark()
    arguments = write_log(tmp_path, make(), kind=kind)
    prepare_events(**arguments, out=tmp_path / "duckdb", workers=1, shard_rows=50)
    prepare_events(**arguments, out=tmp_path / "spark", engine=small_spark, shard_rows=50)
    assert folder_bytes(tmp_path / "duckdb") == folder_bytes(tmp_path / "spark")
