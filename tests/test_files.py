import json

import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.files import json_text, new_folder, write_json


def test_the_folder_takes_its_name_only_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "out"
    with new_folder(path) as folder:
        (folder / "a.txt").write_text("1")
        assert not path.exists()
        assert folder.parent == path.parent
    assert (path / "a.txt").read_text() == "1"
    assert [p.name for p in path.parent.iterdir()] == ["out"]


def test_nothing_is_left_when_the_block_fails(tmp_path):
    def work():
        with new_folder(tmp_path / "out") as folder:
            (folder / "a.txt").write_text("1")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        work()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_path_is_refused_and_unchanged(tmp_path, kind):
    path = tmp_path / "out"
    path.mkdir() if kind == "folder" else path.write_text("mine")
    with pytest.raises(UsageError) as error, new_folder(path):
        pass
    assert str(error.value) == f"{str(path)!r} exists; remove it or name another"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json_has_no_nan():
    values = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), 2)}}
    assert json.loads(json_text(values)) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [None, 2]},
    }


def test_a_json_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "é"})
    write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": null\n}\n'
    assert list(tmp_path.iterdir()) == [path]
