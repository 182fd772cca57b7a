"""What `loopctr inspect` tells of an export, and that the requests it prints can be sent."""

import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.export.inspect import inspect_saved_model


@pytest.fixture(scope="module")
def found(saved_model):
    return inspect_saved_model(saved_model)


def test_a_folder_of_versions_means_its_newest(saved_model, found):
    assert inspect_saved_model(saved_model.parent) == found
    assert found["path"] == str(saved_model)


def test_signatures_are_those_that_tensorflow_loads(loaded, found):
    assert set(found["signatures"]) == set(loaded.signatures)
    assert found["signatures"]["classify"]["method"] == "tensorflow/serving/classify"
    inputs = found["signatures"]["serving_default"]["inputs"]
    assert inputs["movie_id"] == {"dtype": "string", "shape": [-1]}
    assert inputs["history_genres"] == {"dtype": "string", "shape": [-1, -1, -1]}
    assert inputs["history_length"] == {"dtype": "int32", "shape": [-1]}


def test_sizes_are_those_of_the_weights(loaded, found):
    sizes = {name: weight.numpy().nbytes for name, weight in loaded.parameters.items()}
    loop_block = sum(size for name, size in sizes.items() if "loop_block" in name)
    assert found["loop_block_bytes"] == loop_block > 0
    assert found["variable_bytes"] == sum(sizes.values()) > loop_block
    assert found["bytes"] > found["variable_bytes"]


def test_requests_can_be_sent(loaded, found):
    for name, signature in found["signatures"].items():
        request = signature["request"]
        assert request["signature_name"] == name
        if "inputs" not in request:
            continue
        tensors = {
            key: tf.constant(value, signature["inputs"][key]["dtype"])
            for key, value in request["inputs"].items()
        }
        for key, output in loaded.signatures[name](**tensors).items():
            assert output.shape[0] == 2, (name, key)


def test_a_sample_example_is_a_row_of_the_schema(found, prepared):
    (example,) = found["signatures"]["regress"]["request"]["examples"]
    schema = lc.Schema.load(prepared)
    assert set(example) == {field.name for field in schema.all_fields()} | {"history_genres_counts"}
    assert len(example["history_genres"]) == 2
    assert example["history_genres_counts"] == [1, 1]


def test_what_is_no_export_is_told(tmp_path):
    with pytest.raises(lc.UsageError, match="holds no SavedModel"):
        inspect_saved_model(tmp_path / "nope")
    (tmp_path / "saved_model.pb").write_bytes(b"\xff not a protobuf")
    with pytest.raises(lc.UsageError, match="is not an export of this library"):
        inspect_saved_model(tmp_path)
