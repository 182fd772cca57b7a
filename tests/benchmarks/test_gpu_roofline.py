"""StableHLO modules are what their index says; where JAX is, they give what TensorFlow gives."""

import gzip
import json
import re
import sys

import gpu_roofline
import gpu_roofline_export
import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.training.settings import TrainingConfig
from loopctr_tf.training.train import compile_model

SIZES = {"dim": 4, "heads": 1, "ffn_dim": 6, "experts": 2, "active_experts": 1, "loops": 1}
SIZES |= {"streams": 1, "tower_units": (4,)}
HISTORY, ROWS = 3, 24
MLIR = {"float32": "f32", "int32": "i32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Zero loops in both precisions, and a step of training with the other dispatch."""
    path = tmp_path_factory.mktemp("roofline")
    write(path / "forward", ["forward"], ["float32", "bfloat16"], ["batched"])
    write(path / "training", ["training"], ["float32"], ["dense"])
    return path


def write(path, *choices):
    gpu_roofline_export.export(path, ROWS, HISTORY, SIZES, *choices)


def entries(path):
    return json.loads((path / "roofline.json").read_text())["programs"]


def module_text(path, module):
    return gzip.decompress((path / module["module"]).read_bytes()).decode()


def small_model(**settings):
    config = LoopCTRConfig(**SIZES, **settings)
    return gpu_roofline_export.roofline_model(config, ExecutionConfig(), HISTORY)


def of_main(text):
    """(types of the arguments, types of the results) of a module's main function."""
    arguments, results = re.search(r"@main\((.*?)\) -> (.*?) \{\n", text).groups()
    return re.findall(r"tensor<(\w+)>", arguments), re.findall(r"tensor<(\w+)>", results)


def of_index(tensors):
    return ["x".join(map(str, [*t["shape"], MLIR[t["dtype"]]])) for t in tensors]


@pytest.mark.parametrize("name", ["forward", "training"])
def test_modules_take_and_give_what_the_index_says(folder, name):
    for entry in entries(folder / name):
        for kind in ("timed", "checked"):
            text = module_text(folder / name, entry[kind])
            assert of_main(text) == (
                of_index(entry[kind]["inputs"]),
                of_index(entry[kind]["outputs"]),
            )
            assert "custom_call" not in text


def test_inputs_are_features_and_weights(folder):
    entry, _ = entries(folder / "forward")
    shapes = {one["name"]: one["shape"] for one in entry["timed"]["inputs"]}
    features = ["user_id", "hour", "item_id", "category"]
    features += ["clicks_item", "clicks_category", "clicks_length"]
    assert list(shapes)[:7] == features
    assert shapes["clicks_item"] == [ROWS, HISTORY]
    # Table 1 of the paper; and the Loop Block has no part in zero loops.
    assert shapes["loopctr/encoder/item_embedding/embeddings"] == [192_403, 4]
    assert not any("loop_block" in name for name in shapes)
    fills = {one["name"]: one["fill"] for one in entry["timed"]["inputs"]}
    ragged = {one["name"]: one["fill"] for one in entry["checked"]["inputs"]}
    assert fills["clicks_length"] == {"integers": [HISTORY, HISTORY + 1]}
    assert ragged["clicks_length"] == {"integers": [0, HISTORY + 1]}


def test_a_step_gives_the_loss_and_every_gradient(folder):
    (entry,) = entries(folder / "training")
    weights = {
        weight.name.split(":")[0]: weight.shape for weight in small_model().trainable_variables
    }
    outputs = {one["name"]: one["shape"] for one in entry["timed"]["outputs"]}
    assert outputs.pop("loss") == []
    assert outputs.keys() == weights.keys()
    # A user is one row of the table; items are those of histories and the ones asked about.
    assert outputs.pop("loopctr/encoder/user_embedding/embeddings") == [ROWS, 4]
    assert outputs.pop("loopctr/encoder/item_embedding/embeddings") == [ROWS * (HISTORY + 1), 4]
    outputs.pop("loopctr/encoder/category_embedding/embeddings")
    assert outputs == {name: weights[name] for name in outputs}
    inputs = {one["name"] for one in entry["timed"]["inputs"]}
    assert {*weights, "click"} <= inputs


def test_operations_and_settings_are_told(folder):
    model = small_model()

    def row_flops(name):
        return gpu_roofline_export.row_flops(model, name)

    forward, half = entries(folder / "forward")
    (training,) = entries(folder / "training")
    assert forward["flops"] == half["flops"] == ROWS * row_flops("forward")
    assert training["flops"] == ROWS * row_flops("training")
    assert training["flops"] > 3 * forward["flops"]  # one loop more, and backward
    assert (forward["dtype"], forward["dispatch"]) == ("float32", "batched")
    assert (half["dtype"], training["dispatch"]) == ("bfloat16", "dense")
    index = json.loads((folder / "training" / "roofline.json").read_text())
    assert index["settings"]["ffn_dim"] == 6
    assert index["tensorflow"] == tf.__version__


def test_a_module_in_bfloat16_multiplies_in_bfloat16(folder):
    full, half = entries(folder / "forward")
    products = {}
    for entry in (full, half):
        text = module_text(folder / "forward", entry["timed"])
        dots = [line for line in text.splitlines() if "stablehlo.dot" in line]
        products[entry["dtype"]] = sum("bf16" in line for line in dots) / len(dots)
    assert products["float32"] == 0
    assert products["bfloat16"] > 0.5
    # What TensorFlow makes of it differs from float32, a little.
    assert full["tensorflow_distance"] < 1e-5 < half["tensorflow_distance"] < 0.2


def test_the_loss_is_the_models_own():
    model = small_model(balance_weight=3.0)
    compile_model(model, TrainingConfig())
    *data, label = gpu_roofline_export.data_inputs(model.schema, 16, ragged=True)
    features = dict(zip([d["name"] for d in data], gpu_roofline.made_up(data), strict=True))
    (labels,) = gpu_roofline.made_up([label])
    logits, losses = model.scores(features, True, model.heads)
    loss = gpu_roofline_export.training_loss(model, features, tf.constant(labels))
    assert float(loss) == pytest.approx(float(model.objective(labels, logits, losses)), rel=1e-5)


def test_numbers_depend_on_names_alone():
    def one(name, fill, dtype="float32"):
        return {"name": name, "shape": [3, 1000], "dtype": dtype, "fill": fill}

    normal, numbers = {"normal": [5.0, 2.0]}, {"integers": [3, 6]}
    a, b = gpu_roofline.made_up([one("a", normal), one("b", normal)])
    whole, again = gpu_roofline.made_up([one("c", numbers, "int32"), one("a", normal)])
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 1
    assert a.dtype == np.float32
    assert (a.mean(), a.std()) == (pytest.approx(5, abs=0.2), pytest.approx(2, abs=0.2))
    assert whole.dtype == np.int32
    assert set(whole.ravel().tolist()) == {3, 4, 5}


def test_distance():
    # |(3, 4, 1) - (0, 4, 3)| = sqrt(13), |(0, 4, 3)| = 5.
    found, reference = [np.float32([[3], [4]]), 1.0], [np.float32([0, 4]), 3.0]
    assert gpu_roofline.distance(found, reference) == pytest.approx(13**0.5 / 5)


def test_without_jax_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr(sys, "argv", ["gpu_roofline.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="JAX is not installed: pip install"):
        gpu_roofline.main()


@pytest.mark.parametrize("name", ["forward", "training"])
def test_jax_gives_what_tensorflow_gives(folder, name, monkeypatch, capsys, tmp_path):
    pytest.importorskip("jax", reason="needs JAX, which loopctr_tf does not depend on")
    path = tmp_path / "found.json"
    arguments = [str(folder / name), "--seconds=0", "--size=64", f"--json={path}"]
    monkeypatch.setattr(sys, "argv", ["gpu_roofline.py", *arguments])
    gpu_roofline.main()
    found = json.loads(path.read_text())
    for row, entry in zip(found["programs"], entries(folder / name), strict=True):
        assert row["distance"] < (1e-4 if row["dtype"] == "float32" else 0.2)
        rate = found["matmul_rates"][row["dtype"]]
        assert row["share_of_matmul_rate"] == pytest.approx(row["flops_per_s"] / rate)
        assert row["flops_per_s"] * row["ms"] / 1e3 == pytest.approx(entry["flops"])
    assert f"| {name} | float32 | " in capsys.readouterr().out


def test_a_wrong_module_is_not_timed(folder, monkeypatch, capsys, tmp_path):
    pytest.importorskip("jax", reason="needs JAX, which loopctr_tf does not depend on")
    for file in (folder / "forward").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    np.savez(tmp_path / "forward.npz", np.full(gpu_roofline_export.CHECKED_ROWS, 2.0))
    monkeypatch.setattr(sys, "argv", ["gpu_roofline.py", str(tmp_path), "--seconds=0", "--size=64"])
    with pytest.raises(SystemExit, match="were not timed"):
        gpu_roofline.main()
    assert "| forward | float32 | batched | 24 | wrong |" in capsys.readouterr().out
