"""The SavedModel: what it holds, and that it scores as Keras does wherever it is loaded."""

import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from tests.exported import DEPTHS, ROW_SIGNATURES, expected, tensors
from tests.factories import compact_schema, random_batch, small_schema, tiny_model

METHODS = {
    **dict.fromkeys(ROW_SIGNATURES, "tensorflow/serving/predict"),
    "classify": "tensorflow/serving/classify",
    "regress": "tensorflow/serving/regress",
}


def read_proto(path):
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (meta_graph,) = proto.meta_graphs
    return meta_graph


# What is in the folder.


def test_the_signatures_are_those_asked_for_with_their_method_names(saved_model, repairing_model):
    definitions = dict(read_proto(saved_model).signature_def)
    definitions.pop("__saved_model_init_op")
    assert {name: found.method_name for name, found in definitions.items()} == METHODS
    definitions = dict(read_proto(repairing_model).signature_def)
    assert set(definitions) == {"serving_default", "__saved_model_init_op"}


def test_inputs_are_the_raw_features_and_share_their_first_dimension(saved_model):
    signatures = read_proto(saved_model).signature_def
    specs = small_schema().inputs
    for name in ROW_SIGNATURES:
        found = {
            alias: (
                tf.as_dtype(info.dtype).name,
                tuple(None if dim.size == -1 else dim.size for dim in info.tensor_shape.dim),
            )
            for alias, info in signatures[name].inputs.items()
        }
        assert found == {alias: (spec.dtype, spec.shape) for alias, spec in specs.items()}
        assert set(signatures[name].outputs) == {"probability"}
    depths = signatures["all_depths"].outputs["probability"].tensor_shape
    assert [dim.size for dim in depths.dim] == [-1, len(DEPTHS)]
    for name in ("classify", "regress"):
        assert set(signatures[name].inputs) == {"inputs"}
    assert set(signatures["classify"].outputs) == {"classes", "scores"}
    assert set(signatures["regress"].outputs) == {"outputs"}


def graph_nodes(graph: graph_pb2.GraphDef):
    """(nodes of one graph or function, all of them), the functions of the library included."""
    yield graph.node
    for function in graph.library.function:
        yield function.node_def


def uneven_products(graph: graph_pb2.GraphDef) -> list[str]:
    """Batched matrix products of two tensors of different rank, which TensorFlow runs slowly."""
    found = []
    for nodes in graph_nodes(graph):
        ranks = {
            node.name: [
                None if shape.unknown_rank else len(shape.dim)
                for shape in node.attr["_output_shapes"].list.shape
            ]
            for node in nodes
        }
        for node in nodes:
            if node.op.startswith("BatchMatMul"):
                # Inside a function an input is written node:output:place.
                inputs = [name.split(":") for name in node.input[:2]]
                first, second = (
                    (ranks.get(name) or [None])[int(place[-1]) if place else 0]
                    for name, *place in inputs
                )
                if None not in (first, second) and first != second:
                    found.append(node.name)
    return found


def test_the_graph_needs_no_python_and_no_keras(saved_model, repairing_model):
    for path in (saved_model, repairing_model):
        meta_graph = read_proto(path)
        graph = meta_graph.graph_def
        operations = {node.op for nodes in graph_nodes(graph) for node in nodes}
        # The walk reaches into functions: lookups and products are nowhere else.
        assert {"LookupTableFindV2", "MatMul", "ResourceGather"} <= operations
        assert not {op for op in operations if "PyFunc" in op}
        assert not {op for op in operations if op.startswith("Xla")}
        objects = meta_graph.object_graph_def.nodes
        kinds = {node.user_object.identifier for node in objects if node.HasField("user_object")}
        assert kinds == {"_generic_user_object", "signature_map", "trackable_dict_wrapper"}
        assert not list(path.rglob("*keras*"))
        assert uneven_products(graph) == []


def test_nothing_is_left_of_training_and_weights_are_prepared(saved_model):
    """Router statistics are not computed, and what is made of weights alone is read."""
    model = tiny_model(schema=compact_schema(), loops=1)
    features, _ = random_batch(2, schema=compact_schema())
    training = tf.function(
        lambda: model(features, training=True), autograph=False
    ).get_concrete_function()
    counted = re.compile("(^|/)count(_[0-9]+)?/")
    assert any(counted.search(op.name) for op in training.graph.get_operations())
    graph = read_proto(saved_model).graph_def
    names = {node.name for nodes in graph_nodes(graph) for node in nodes}
    assert any("router" in name for name in names)
    assert not {name for name in names if counted.search(name)}
    hyper_connections = [name for name in variables(saved_model) if "_hcr.S" in name]
    kinds = {re.search(r"_hcr\.S(\w+)/", name)[1] for name in hyper_connections}
    assert kinds == {"kernel", "static", "scale"}
    assert any("Sloop_block." in name for name in hyper_connections)
    assert not [name for name in variables(saved_model) if name.split("/")[1].endswith(".Squery")]


def test_uneven_products_would_be_found():
    @tf.function(autograph=False)
    def multiply(x, y):
        return tf.raw_ops.BatchMatMulV2(x=tf.identity(x), y=tf.identity(y))

    def graph(*y_shape):
        shapes = [3, 2, 2], y_shape
        function = multiply.get_concrete_function(*(tf.TensorSpec(s, tf.float32) for s in shapes))
        return function.graph.as_graph_def(add_shapes=True)

    assert uneven_products(graph(2, 2)) == ["BatchMatMulV2"]
    assert uneven_products(graph(3, 2, 2)) == []


def variables(path) -> dict[str, tuple]:
    found = tf.train.list_variables(str(path / "variables" / "variables"))
    return {name: tuple(shape) for name, shape in found if name != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_a_zero_loop_export_holds_nothing_of_the_loop_block(saved_model, repairing_model, trained):
    def weights(path):
        return {
            name.split(".S", 1)[1].removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): shape
            for name, shape in variables(path).items()
        }

    full, zero = weights(saved_model), weights(repairing_model)
    block = {name for name in full if "loop_block" in name}
    names = {
        weight.name.split("/", 1)[1].removesuffix(":0") for weight in trained.loop_block.weights
    }
    # In place of some weights stands what is made of them alone.
    prepared = {name for name in names if "_hcr/" in name or name.endswith("attention/query")}
    made = {"loop_block/attention/scaled_query"} | {
        f"loop_block/{part}_hcr/{name}"
        for part in ("attention", "ffn")
        for name in ("kernel", "static", "scale")
    }
    assert {name.replace(".S", "/") for name in block} == names - prepared | made
    assert zero == {name: shape for name, shape in full.items() if name not in block}


def test_the_schema_is_an_asset(saved_model, trained):
    schema = Schema.load(saved_model / "assets" / "schema.yaml")
    assert schema == trained.schema
    assert schema.table("movie").vocabulary[:2] == ("m0", "m1")


def test_weights_of_half_precision(tmp_path):
    # All experts active: a choice between two that tie would hang on the last digits.
    schema = compact_schema()
    model = tiny_model(schema=schema, loops=1, streams=1, experts=2, active_experts=2)
    for weight in model.weights:  # embeddings start too small to tell
        if "embeddings" in weight.name:
            weight.assign(100 * weight)
    path = lc.export_saved_model(
        model, tmp_path / "1", signatures=["loop_1"], weights="bfloat16", warmup_batch_sizes=()
    )
    loaded = tf.saved_model.load(str(path))
    stored = {name: weight.dtype for name, weight in loaded.parameters.items()}
    half = {name for name, dtype in stored.items() if dtype == tf.bfloat16}
    kinds = r"/(embeddings|inner|outer|key|value/kernel|output/kernel|kernel_\d+)$"
    assert {name for name in stored if re.search(kinds, name)} <= half
    assert not [name for name in half if "router" in name or "gain" in name or "sink" in name]
    features, _ = random_batch(6, schema=schema)
    features = {name: features[name] for name in schema.inputs}
    found = loaded.signatures["loop_1"](**features)["probability"]
    expected = model.score(features, 1)
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert np.any(np.abs(found - expected) > 1e-7)


def test_weights_that_cannot_be_stored_are_named(tmp_path):
    model = tiny_model(schema=compact_schema(), loops=0)
    model.exit_block.head.kernel.assign(1e6 * tf.ones_like(model.exit_block.head.kernel))
    with pytest.raises(UsageError, match=r"head/kernel:0 holds 1e\+06, which is beyond float16"):
        lc.export_saved_model(model, tmp_path / "1", signatures=["loop_0"], weights="float16")
    with pytest.raises(UsageError, match="weights is 'int8'; choose 'float32', 'float16'"):
        lc.export_saved_model(model, tmp_path / "1", weights="int8")
    assert not (tmp_path / "1").exists()


# Scores.


def test_served_scores_are_those_of_keras_at_every_depth(loaded, raw_rows, tested):
    for name in ROW_SIGNATURES:
        found = loaded.signatures[name](**tensors(raw_rows))
        assert set(found) == {"probability"}
        np.testing.assert_allclose(found["probability"], expected(tested, name), atol=1e-5)
    depths = expected(tested, "all_depths")
    assert np.abs(np.diff(depths, axis=1)).max() > 1e-3


def test_a_repairing_export_scores_good_rows_alike(repairing, raw_rows, tested):
    found = repairing(**tensors(raw_rows))["probability"]
    np.testing.assert_allclose(found, expected(tested, "serving_default"), atol=1e-5)


def test_classify_and_regress_take_serialized_examples(loaded, examples, tested):
    probability = expected(tested, "serving_default")
    found = loaded.signatures["regress"](inputs=tf.constant(examples))
    np.testing.assert_allclose(found["outputs"], probability, atol=1e-5)
    found = loaded.signatures["classify"](inputs=tf.constant(examples))
    assert found["classes"].numpy().tolist() == [[b"0", b"1"]] * len(examples)
    np.testing.assert_allclose(found["scores"][:, 1], probability, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found["scores"], axis=1), 1.0, rtol=1e-6)


def test_no_rows_are_legal(loaded, repairing, raw_rows):
    nothing = tensors({name: value[:0] for name, value in raw_rows.items()})
    for name in ("serving_default", "loop_2"):
        assert loaded.signatures[name](**nothing)["probability"].shape == (0,)
    assert loaded.signatures["all_depths"](**nothing)["probability"].shape == (0, len(DEPTHS))
    assert repairing(**nothing)["probability"].shape == (0,)


def test_signatures_of_every_kind_score_near_float32_in_mixed_precision(tmp_path):
    # All experts, so that a rounding never becomes another choice.
    settings = {"schema": compact_schema(), "loops": 1, "streams": 1, "active_experts": 3}
    mixed = tiny_model(precision="mixed_bfloat16", **settings)
    names = ["cascade", "encode_user_loop_1", "rank_cached_loop_1"]
    path = tmp_path / "1"
    lc.export_saved_model(mixed, path, signatures=names, warmup_batch_sizes=())
    loaded = tf.saved_model.load(str(path))
    rows, _ = random_batch(6, schema=compact_schema())
    rows = {name: rows[name] for name in compact_schema().inputs}
    users = {name: value[::3] for name, value in rows.items() if name != "movie_id"}
    items = {"movie_id": tf.reshape(rows["movie_id"], [2, 3])}
    rows |= {name: tf.repeat(value, 3, axis=0) for name, value in users.items()}
    expected = tf.sigmoid(tiny_model(**settings)(rows)).numpy()

    def near(name, depth, **inputs):
        found = loaded.signatures[name](**inputs)["probability"]
        assert found.dtype == tf.float32
        wanted = expected[:, depth].reshape(found.shape)
        np.testing.assert_allclose(found, wanted, atol=0.03, err_msg=name)

    near("serving_default", 0, **rows)
    near("cascade", 1, **users, **items, refine_top_k=tf.constant([3, 3]))
    states = loaded.signatures["encode_user_loop_1"](**users)
    assert {states[f"state_{name}"].dtype for name in ("keys", "tower")} == {tf.float32}
    near("rank_cached_loop_1", 1, **states, **items)
    nodes = [node for nodes in graph_nodes(read_proto(path).graph_def) for node in nodes]
    products = {node.attr["T"].type for node in nodes if node.op == "MatMul"}
    assert tf.bfloat16.as_datatype_enum in products


# What cannot be exported, and an export that fails.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"signatures": ["loop_4"]}, "signature 'loop_4' cannot be exported; choose serving_def"),
        ({"bad_input": "ignore"}, "bad_input is 'ignore'; choose reject or repair"),
        ({"loops": -1}, "loops is -1; give a whole number from 0 to 6"),
        ({"loops": 7}, "loops is 7; this model runs at 0 to 6 loops"),
    ],
)
def test_wrong_settings_are_told_and_leave_nothing(tmp_path, arguments, words):
    with pytest.raises(UsageError, match=words):
        lc.export_saved_model(tiny_model(schema=compact_schema()), tmp_path / "1", **arguments)
    assert not list(tmp_path.iterdir())


def test_every_depth_up_to_the_training_loops_is_offered(tmp_path):
    with pytest.raises(UsageError) as error:
        lc.export_saved_model(
            tiny_model(schema=compact_schema()), tmp_path / "1", signatures=["nope"]
        )
    offered = str(error.value).partition("choose ")[2].split(", ")
    wanted = ["serving_default", "loop_0", "loop_1", "loop_2", "all_depths", "classify", "regress"]
    assert [name for name in offered if name in wanted] == wanted
    assert "loop_3" not in offered


def test_an_existing_folder_is_refused_and_kept(saved_model, trained):
    before = {path: path.stat().st_mtime_ns for path in saved_model.rglob("*")}
    with pytest.raises(UsageError, match=r"1' exists; remove it or name another"):
        lc.export_saved_model(trained, saved_model, signatures=["serving_default"])
    assert {path: path.stat().st_mtime_ns for path in saved_model.rglob("*")} == before
    assert [path.name for path in saved_model.parent.iterdir()] == ["1"]


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def fail(module, folder, **_):
        written.extend(tmp_path.iterdir())
        (written[0] / "saved_model.pb").write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    model = tiny_model(schema=compact_schema(), loops=0)
    with pytest.raises(OSError, match="no space left"):
        lc.export_saved_model(model, tmp_path / "1", signatures=["serving_default"])
    assert [re.sub("-.*", "", path.name) for path in written] == [".1.partial"]
    assert not list(tmp_path.iterdir())


def test_axes_are_named_and_events_after_the_input_that_counts_them(saved_model):
    saved = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs

    def axes(signature, name):
        shape = graph.signature_def[signature].inputs[name].tensor_shape
        return [axis.name for axis in shape.dim]

    assert axes("serving_default", "history_genres") == ["batch", "history_length", "values"]
    assert axes("serving_default", "movie_id") == ["batch"]
    assert axes("serving_default", "history_length") == ["batch"]
