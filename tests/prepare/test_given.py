"""Rows whose histories are there already, from files: the same rows as of frames, and what is wrong."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import loopctr_tf as lc
from loopctr_tf.cli.data import prepare
from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.given import prepare_given
from loopctr_tf.prepare.rows import prepare_rows
from tests.factories import random_frame, schema_dict
from tests.prepare.logs import stored_rows
from tests.prepare.test_rows import folder_bytes

ROWS = 120
SPLITS = ("train", "valid", "test")
SPLIT = {"by": "time", "column": "time", "valid": 0.2, "test": 0.1}


def schema_of(nested: bool = True, **build) -> dict:
    """The schema of the factories to be fitted, with a section `build`."""
    values = schema_dict()
    for table in values["tables"].values():
        if "vocabulary" in table:
            table["vocabulary"] = []
    if not nested:
        fields = values["sequences"][0]["fields"]
        values["sequences"][0]["fields"] = [f for f in fields if f["name"] != "history_genres"]
    section = {"histories": "given", "split": SPLIT, **build}
    return {**values, "build": {k: v for k, v in section.items() if v is not None}}


def frame_of() -> pd.DataFrame:
    """Random rows in no order of time; two for each time, some values missing."""
    frame = random_frame(ROWS)
    times = np.random.default_rng(1).permutation(ROWS) // 2 * 60 + 1_700_000_000
    frame = frame.assign(time=times, part=["abc"[row % 3] for row in range(ROWS)])
    frame.loc[3, "age"] = None
    frame.at[5, "history_movie"] = ["m1", None, "m2"]
    frame.at[5, "history_genres"] = [["drama"], [], ["comedy"]]
    frame.at[5, "history_gap"] = [1.0, 2.0, None]
    return frame


class Frames:
    """The frame in splits, for ``prepare_rows``."""

    def __init__(self, frame: pd.DataFrame, splits: dict[str, np.ndarray]):
        self._frame, self._splits = frame, splits

    def batches(self, split):
        rows = self._frame[self._splits[split]]
        yield pa.Table.from_pandas(rows, preserve_index=False)


def write(folder, schema: dict, frame: pd.DataFrame, kind: str = "parquet") -> dict:
    """Schema and rows in two files: arguments of ``prepare_given``."""
    folder.mkdir(exist_ok=True)
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    paths = []
    for number, part in enumerate((frame[:70], frame[70:])):
        path = folder / f"part{number}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pandas(part, preserve_index=False), path)
        elif kind == "jsonl":
            path.write_text(part.to_json(orient="records", lines=True))
        else:
            lists = [n for n in part if isinstance(part[n].iloc[0], list)]
            joined = {
                n: ["|".join("" if v is None else str(v) for v in values) for values in part[n]]
                for n in lists
            }
            part.assign(**joined).to_csv(path, index=False)
        paths.append(path)
    return {"schema_path": folder / "schema.yaml", "rows": paths}


def by_time(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Of 120 rows the last 36 in time are valid and test, 12 of them test; ties go to the later."""
    times = np.sort(frame["time"])
    valid, test = times[84], times[108]
    return {
        "train": frame["time"] < valid,
        "valid": (frame["time"] >= valid) & (frame["time"] < test),
        "test": frame["time"] >= test,
    }


def without(schema: dict) -> lc.Schema:
    return lc.Schema.from_dict({k: v for k, v in schema.items() if k != "build"})


COLUMNS = {
    name: {"separator": "|"}
    for name in ("genres", "history_movie", "history_gap", "long_movie", "long_rating")
}


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_rows_are_those_of_the_frame(tmp_path, kind):
    frame, csv = frame_of(), kind == "csv"
    rules = {"tables": {"movie": {"min_count": 20}}, "numeric": {"long_rating": {"fixed": True}}}
    if csv:
        # A list of one missing value cannot be told from an empty one in text.
        rules["columns"] = COLUMNS
    schema = schema_of(nested=not csv, **rules)
    said = []
    stats = prepare_given(
        **write(tmp_path, schema, frame, kind),
        out=tmp_path / "out",
        workers=1,
        shard_rows=25,
        say=said.append,
    )
    plain = Frames(frame, by_time(frame))
    prepare_rows(
        without(schema),
        plain,
        tmp_path / "plain",
        tables=rules["tables"],
        fixed=["long_rating"],
        workers=1,
        shard_rows=25,
    )
    found, expected = folder_bytes(tmp_path / "out"), folder_bytes(tmp_path / "plain")
    assert found.pop("stats.json") != expected.pop("stats.json")
    if kind == "parquet":
        assert found == expected
    else:
        for split in SPLITS:
            assert stored_rows(tmp_path / "out", split) == stored_rows(tmp_path / "plain", split)
    assert stats["rows"] == {"train": 84, "valid": 24, "test": 12}
    assert stats["input"] == {"read": ROWS, "used": ROWS, "bad": 0}
    assert stats["build"] == schema["build"]
    assert sum(count for day in stats["days"].values() for count, _ in day.values()) == ROWS
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == stats
    assert said == stats["warnings"] == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_split_by_a_column_a_label_and_rows_by_conditions(tmp_path, workers):
    frame = frame_of().rename(columns={"label": "stars"})
    schema = schema_of(
        label={"column": "stars", "at_least": 1},
        rows={"column": "device", "values": [7, 5, 11]},
        split={"by": "column", "column": "part", "train": ["a"], "valid": ["b"], "test": ["c"]},
    )
    schema["features"][2]["column"] = "years"
    frame = frame.rename(columns={"age": "years"})
    stats = prepare_given(**write(tmp_path, schema, frame), out=tmp_path / "out", workers=workers)
    for split, part in zip(SPLITS, "abc", strict=True):
        expected = frame[(frame["part"] == part) & frame["device"].isin([7, 5, 11])]
        rows = stored_rows(tmp_path / "out", split)
        assert [row["label"][0] for row in rows] == expected["stars"].tolist()
        assert [row["user_id"][0] for row in rows] == expected["user_id"].tolist()
        assert stats["rows"][split] == len(expected) > 0
    assert "days" not in stats


def refused(folder, schema, frame, kind="parquet") -> str:
    with pytest.raises(UsageError) as error:
        prepare_given(**write(folder, schema, frame, kind), out=folder / "out", workers=1)
    assert not (folder / "out").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lists_of_different_lengths_are_bad_rows(tmp_path):
    frame = frame_of()
    frame.at[72, "long_rating"] = [1.0, 2.0]
    frame.at[72, "long_movie"] = ["m1", "m2", "m3"]
    message = refused(tmp_path, schema_of(), frame)
    assert message.endswith(
        "part1.parquet', row 3, column 'long_rating': lists of different lengths in a sequence, "
        "'2 and 3'; give its fields the same number of events, or leave such rows out with --skip-bad"
    )
    stats = prepare_given(
        **write(tmp_path, schema_of(), frame), out=tmp_path / "out", workers=1, skip_bad=True
    )
    assert stats["rejected"] == {"lists of different lengths in a sequence": 1}
    assert stats["input"] == {"read": ROWS, "used": ROWS - 1, "bad": 1}
    assert sum(stats["rows"].values()) == ROWS - 1
    assert "part1.parquet,3,long_rating" in (tmp_path / "out" / "rejected.csv").read_text()


def test_bad_cells_are_named(tmp_path):
    frame = frame_of().astype({"device": object})
    frame["device"] = frame["device"].map(str)
    frame.loc[1, "device"] = "phone"
    assert "part0.parquet', row 2, column 'device': " in refused(tmp_path, schema_of(), frame)
    frame = frame_of()
    frame.loc[1, "user_id"] = None
    assert "row 2, column 'user_id': missing" in refused(tmp_path, schema_of(), frame)
    frame = frame_of()
    frame["label"] = frame["label"].map(lambda label: 7 if label else 0)
    assert "column 'label': " in refused(tmp_path, schema_of(), frame)


ONE_PART = {"by": "column", "column": "part", "train": ["a", "b", "c"], "valid": ["d"]}
MISTAKES = [
    (
        {"split": {**SPLIT, "column": "when"}},
        "build: split: --rows has no column 'when'; its columns are user_id, movie_id, genres",
    ),
    (
        {"columns": {"age": {"separator": "|"}}},
        "build: columns: 'age' is not the column of a multi",
    ),
    ({"label": {"column": "stars", "values": [1]}}, "build: label: --rows has no column 'stars'"),
    (
        {"label": {"column": "part", "values": ["x"]}},
        "build: label: none of 120 events has part in [x]; 'part' holds 'a' (40), 'b' (40), 'c' (40)",
    ),
    ({"split": ONE_PART}, "build: split leaves valid without rows (of 120 rows: train 120)"),
    (
        {"split": {"by": "column", "column": "part", "train": ["a"]}},
        "build: split: column 'part' holds 'b' in 40 rows, and the rules name a; add it",
    ),
    ({"split": {"by": "last", "valid": 1, "test": 1}}, "build: split: by is 'last'; choose 'time'"),
    ({"split": {"by": "time", "valid": 0.1, "test": 0.1}}, "split.time: key 'column' is missing"),
    ({"user": "user_id"}, "build: key 'user' does not exist"),
    ({"histories": None}, "--rows has rows with their histories, and build has no key `histories`"),
    ({"histories": "made"}, "build: histories is 'made'; choose 'given'"),
    ({"tables": {"zip": {}}}, "build: tables: 'zip' is not a table to be fitted"),
]


@pytest.mark.parametrize(("build", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_one_line(tmp_path, build, words):
    assert words in refused(tmp_path, schema_of(**build), frame_of())


def test_columns_that_cannot_be_are_refused(tmp_path):
    frame = frame_of().drop(columns="affinity")
    message = refused(tmp_path, schema_of(), frame)
    assert message.startswith(
        "feature 'affinity': --rows has no column 'affinity'; its columns are "
    )
    message = refused(tmp_path, schema_of(columns=COLUMNS), frame_of(), "csv")
    assert message.startswith(
        "column 'history_genres' of --rows is VARCHAR, but a multi-valued field of a sequence needs "
        "lists of lists; store them in Parquet files"
    )


def test_a_split_without_both_labels_is_told(tmp_path):
    frame = frame_of()
    frame.loc[by_time(frame)["valid"], "label"] = 0
    said = []
    prepare_given(
        **write(tmp_path, schema_of(), frame), out=tmp_path / "out", workers=1, say=said.append
    )
    assert len(said) == 1
    assert said[0].startswith("valid has no positive row among 24: AUC is undefined there")


def test_the_command_takes_rows_or_events(tmp_path):
    arguments = write(tmp_path, schema_of(), frame_of())
    line = ["--schema", str(arguments["schema_path"]), "--out", str(tmp_path / "out"), "--quiet"]
    rows = ["--rows", *map(str, arguments["rows"]), "--workers", "1"]
    done = CliRunner().invoke(prepare, [*line, *rows])
    assert done.exit_code == 0, done.output
    assert "rows train 84, valid 24, test 12\n" in done.output
    for words, message in (
        ([], "name the files: --events of a log, or --rows of rows that hold their histories"),
        ([*rows, "--events", "x"], "--events and --rows are both given; name one"),
        (
            [*rows, "--items", "x"],
            "--items is of --events; rows hold all of their columns; drop it",
        ),
        ([*rows, "--engine", "spark"], "--engine is 'spark'; --rows is read by duckdb alone"),
        (["--events", str(arguments["rows"][0])], "build: histories is 'given', of rows that have"),
    ):
        failed = CliRunner().invoke(prepare, [*line[:2], "--out", str(tmp_path / "other"), *words])
        assert isinstance(failed.exception, UsageError)
        assert str(failed.exception).startswith(message)
