import json
import os

import numpy as np
import pytest

from loopctr_tf.features.prepared import SPLITS, PreparedWriter
from loopctr_tf.features.records import WireColumn, wire_values
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.writing import write_shards
from tests.factories import small_schema
from tests.prepare.logs import load_rows, schema_dict, stored_rows, write_log


def number_pieces(split, numbers):
    """One row a number, in pieces of two."""
    for start in range(0, len(numbers), 2):
        values = np.array(numbers[start : start + 2], np.float32)
        counts = {"rows": len(values), "clicks": int(values.sum()), split: 1}
        yield {"x": WireColumn(wire_values(values))}, counts


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_keep_their_order_and_are_counted(tmp_path, workers):
    writer = PreparedWriter(tmp_path, small_schema())
    shards = [("train", [1, 0, 1]), ("train", [0]), ("test", [1, 1]), ("train", [1, 0])]
    seen = []
    total = write_shards(tmp_path, writer, iter(shards), number_pieces, workers, seen.append)
    stats = writer.finish()
    assert total == {"rows": 8, "clicks": 5, "train": 4, "test": 1}
    assert seen == [3, 1, 2, 2]
    assert stats["rows"] == {"train": 6, "valid": 0, "test": 2}
    assert stats["clicks"] == {"train": 3, "valid": 0, "test": 2}
    assert [row["x"] for row in stored_rows(tmp_path, "train")] == [[1], [0], [1], [0], [1], [0]]
    assert [shard["rows"] for shard in stats["shards"]["train"]] == [3, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_in_the_middle_leaves_nothing(tmp_path, monkeypatch, workers):
    """A worker runs out of disk after some shards are written."""
    arguments = write_log(tmp_path, schema_dict())
    before = sorted(path.name for path in tmp_path.iterdir())
    written = tmp_path / "written"
    from loopctr_tf.prepare import writing

    real = writing.write_records

    def write_records(path, pieces):
        if "part-00003" in str(path):
            # Only now the folder may hold something.
            written.write_text(json.dumps([p.name for p in tmp_path.iterdir()]))
            raise OSError("No space left on device")
        return real(path, pieces)

    monkeypatch.setattr(writing, "write_records", write_records)
    with pytest.raises((OSError, RuntimeError), match="No space left on device"):
        prepare_events(**arguments, out=tmp_path / "out", workers=workers, shard_rows=10)
    assert any(name.startswith(".out.partial-") for name in json.loads(written.read_text()))
    os.remove(written)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_pieces_of_any_size_give_the_same_rows(tmp_path, monkeypatch):
    arguments = write_log(tmp_path, schema_dict())
    prepare_events(**arguments, out=tmp_path / "whole", workers=1)
    monkeypatch.setattr("loopctr_tf.prepare.event_rows._EVENTS", 45)
    assert len(list(load_rows(tmp_path, schema_dict()).pieces(0, 10))) == 4
    prepare_events(**arguments, out=tmp_path / "parts", workers=1)
    for split in SPLITS:
        assert stored_rows(tmp_path / "whole", split) == stored_rows(tmp_path / "parts", split)
