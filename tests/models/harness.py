"""What every registered model is put through; ``test_models.py`` runs it.

A model that is added to the registry needs an entry in :data:`SETTINGS` and nothing else.
"""

import contextlib

import numpy as np
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from loopctr_tf.models import model_class
from tests.factories import compact_schema, disturb, random_batch, schema_dict, small_schema

LOOPS = {"heads": 2, "ffn_dim": 6, "experts": 3, "loops": 1, "num_queries": 2, "tower_units": [5]}
SETTINGS = {
    "loopctr": LOOPS,
    "stackctr": {**LOOPS, "streams": 1},
    "dlrm": {"bottom_units": [5], "tower_units": [6]},
    "wukong": {
        "fm_outputs": 3,
        "compressed": 2,
        "rank": 2,
        "mlp_units": [6],
        "tower_units": [5],
    },
    "dhen": {
        "modules": ["dot", "attention", "cross", "linear", "mlp"],
        "outputs": 3,
        "heads": 2,
        "ffn_units": 6,
        "cross_rank": 2,
        "mlp_units": [5],
        "tower_units": [5],
    },
    "hstu": {"heads": 2, "tower_units": [5], "time_fields": ["history_gap", "long_rating"]},
    "mtgr": {"heads": 2, "tower_units": [5], "time_fields": ["history_gap", "long_rating"]},
    "din": {"attention_units": [5, 3], "tower_units": [6]},
    "dcnv2": {"projection_dim": 3, "structure": "parallel", "tower_units": [6]},
    "autoint": {"heads": 2, "layers": 2},
    "hiformer": {"heads": 2, "ffn_dim": 6, "rank": 3, "tower_units": [5]},
    "interformer": {
        "heads": 2,
        "ffn_dim": 6,
        "cls_tokens": 2,
        "recent_tokens": 3,
        "tower_units": [5],
    },
    "onetrans": {"layers": 3, "heads": 2, "ffn_dim": 6, "final_queries": 1, "tower_units": [5]},
}
"""The least of each model, at width 8."""
ROWS, CANDIDATES = 6, 3
FIELDS = {
    "history": ("history_movie", "history_genres", "history_gap"),
    "long": ("long_movie", "long_rating"),
}


def make(name: str, schema: lc.Schema | None = None, **settings):
    """A model of the registry whose weights depend on its name alone, none at its first value."""
    schema = schema or small_schema()
    chosen = {"dim": 8, "embedding_dim": 4, **SETTINGS[name], **settings}
    fields = {field.name for sequence in schema.sequences for field in sequence.fields}
    if "time_fields" not in settings and not fields >= set(chosen.get("time_fields", ())):
        del chosen["time_fields"]
    keras.utils.set_random_seed(1)
    model = model_class(name)(schema, name="m", **chosen)
    disturb(model)
    return model


def batch(schema: lc.Schema | None = None, seed: int = 3):
    """(features of the schema, labels) with empty, short and full histories."""
    schema = schema or small_schema()
    features, labels = random_batch(ROWS, seed, schema)
    return {name: features[name] for name in schema.inputs}, labels


def export_schema() -> lc.Schema:
    """One feature of each kind that shapes a request, so that signatures are quick to trace.

    Types of tables and fields of events are the encoder's alone; the session's export has them all.
    """
    values = schema_dict()
    features = ("movie_id", "genres", "age", "affinity")
    values["features"] = [f for f in values["features"] if f["name"] in features]
    values["tables"] = {name: values["tables"][name] for name in ("movie", "genre")}
    for sequence in values["sequences"]:
        sequence["fields"] = sequence["fields"][:1]
    return lc.Schema.from_dict(values)


def scores(model, features) -> np.ndarray:
    """Probabilities [B, heads]."""
    return tf.sigmoid(model(features)).numpy()


def beside_tables(model) -> int:
    """The number of parameters outside the embedding tables."""
    return sum(int(np.prod(w.shape)) for w in model.weights if "embedding" not in w.name)


def check_every_weight_moves(model) -> None:
    """One step of plain SGD changes every trainable weight, and leaves finite ones."""
    before = {weight.name: weight.numpy() for weight in model.trainable_weights}
    assert len(before) == len(model.trainable_weights)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    figures = model.train_on_batch(*batch(), return_dict=True)
    assert np.isfinite(figures["loss"])
    for weight in model.trainable_weights:
        assert np.isfinite(weight.numpy()).all(), weight.name
        assert (weight.numpy() != before[weight.name]).any(), f"{weight.name} did not move"


def check_saving(model, folder):
    """Weights, the whole model, and the configuration alone come back; returns the model of the file."""
    features, _ = batch()
    expected = scores(model, features)
    cls = type(model)
    again = cls.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert not np.allclose(scores(again, features), expected)
    model.save_weights(folder / "m.weights.h5")
    again.load_weights(folder / "m.weights.h5")
    np.testing.assert_array_equal(scores(again, features), expected)
    model.save(folder / "m.keras")
    loaded = keras.models.load_model(folder / "m.keras")
    assert type(loaded) is cls
    np.testing.assert_array_equal(scores(loaded, features), expected)
    return loaded


def check_padding(model) -> None:
    """Scores do not depend on what padding holds, nor on how much of it there is."""
    features, _ = batch(model.schema)
    assert not features["history_length"].numpy().all(), "the batch needs an empty history"
    expected = scores(model, features)
    assert np.isfinite(expected).all()
    rng, changed = np.random.default_rng(0), dict(features)
    for sequence in model.schema.sequences:
        lengths = features[sequence.length_name].numpy()
        for field in (each.name for each in sequence.fields):
            value = features[field].numpy()
            shape = (len(value), value.shape[1] + 3, *value.shape[2:])
            junk = ["m1", "drama", "junk"] if value.dtype == object else [np.nan, np.inf, 1e38]
            filled = rng.choice(np.array(junk, value.dtype), shape)
            for row, length in enumerate(lengths):
                filled[row, :length] = value[row, :length]
            changed[field] = tf.constant(filled)
    np.testing.assert_allclose(scores(model, changed), expected, atol=1e-6)


def sides(model, features, candidates: int = CANDIDATES, seed: int = 4):
    """A request's features, those of N candidates [R, N, ...], and all pairs row by row."""
    specs = model.schema.inputs
    rng = np.random.default_rng(seed)
    user = {name: value for name, value in features.items() if not specs[name].candidate}
    listed = {}
    for name in specs:
        if specs[name].candidate:
            places = rng.integers(0, ROWS, (ROWS, candidates))
            listed[name] = tf.gather(features[name], places)
    pairs = {
        **{name: tf.repeat(value, candidates, axis=0) for name, value in user.items()},
        **{
            name: tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], axis=0))
            for name, value in listed.items()
        },
    }
    return user, listed, pairs


def rank(model, user, candidates, head: str) -> np.ndarray:
    """Probabilities [R, N] by the two-sided protocol."""
    (state,) = model.encode_user(model.encoder(user), (head,))
    return model.rank(state, model.encoder(candidates), head).numpy()


def check_ranking(model) -> None:
    """Ranking equals row by row for every head, in any order, and takes an empty list."""
    features, _ = batch()
    user, candidates, pairs = sides(model, features)
    order = [2, 0, 1]
    for head in model.heads:
        expected = model.score(pairs, head=head).numpy().reshape(ROWS, CANDIDATES)
        assert np.ptp(expected, axis=1).max() > 1e-3, "the candidates must differ"
        np.testing.assert_allclose(rank(model, user, candidates, head), expected, atol=1e-5)
        reordered = {name: tf.gather(v, order, axis=1) for name, v in candidates.items()}
        found = rank(model, user, reordered, head)
        np.testing.assert_allclose(found, expected[:, order], atol=1e-6)
        nobody = {name: value[:, :0] for name, value in candidates.items()}
        assert rank(model, user, nobody, head).shape == (ROWS, 0)


def check_export(name: str, folder) -> None:
    """A session without this library scores and ranks alike, from stored states where there are any."""
    model = make(name, export_schema())
    features, _ = batch(model.schema)
    user, candidates, pairs = sides(model, features)
    head, specs = model.served, model.state_specs(model.served, tf.float32)
    ending = f"_{head}" if head else ""
    # Where states are stored, ranking at once is the same two halves in one graph.
    names = ["serving_default", f"rank{ending}"]
    if specs is not None:
        names[1:] = [f"encode_user{ending}", f"rank_cached{ending}"]
    lc.export_saved_model(model, folder / "1", signatures=names, warmup_batch_sizes=())
    expected = model.score(pairs, head=head).numpy()
    config = tf.compat.v1.ConfigProto()
    # Each feed and fetch would be a graph to rewrite; the tests of servers have that.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.compat.v1.Session(graph=tf.Graph(), config=config) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder / "1"))

        def run(name, inputs):
            signature = loaded.signature_def[name]
            assert set(signature.inputs) == set(inputs)
            feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
            return session.run({k: info.name for k, info in signature.outputs.items()}, feeds)

        def plain(tensors):
            return {name: value.numpy() for name, value in tensors.items()}

        rows, people, listed = plain(pairs), plain(user), plain(candidates)
        found = run("serving_default", rows)["probability"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        if specs is None:
            found = run(names[1], {**people, **listed})["probability"]
        else:
            state = run(names[1], people)
            shapes = {f"state_{name}": tuple(spec.shape[1:]) for name, spec in specs.items()}
            assert {n: v.shape[1:] for n, v in state.items() if n != "state_version"} == shapes
            found = run(names[2], {**state, **listed})["probability"]
        np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-5)
        for alias, info in loaded.signature_def[names[-1]].inputs.items():
            if alias in model.schema.inputs:
                named = [axis.name for axis in info.tensor_shape.dim]
                assert named == list(model.schema.inputs[alias].axes(ranked=True))


def check_mixed_precision(name: str, model) -> None:
    """Weights and scores stay float32, products do not, and scores stay near."""
    mixed = make(name, precision="mixed_bfloat16")
    assert {weight.dtype for weight in mixed.trainable_weights} == {tf.float32}
    features, labels = batch()
    found = mixed.score(features)
    assert found.dtype == tf.float32
    expected = model.score(features).numpy()
    assert (found.numpy() != expected).any()
    np.testing.assert_allclose(found, expected, atol=0.05)
    mixed.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    assert np.isfinite(mixed.train_on_batch(features, labels)).all()


def check_two_devices(name: str, strategy) -> None:
    """Two replicas, of four rows and of two, step as one device does with all six."""
    schema = compact_schema()
    features, labels = batch(schema)

    def step(scope):
        with scope:
            model = make(name, schema)
            model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        dataset = tf.data.Dataset.from_tensor_slices((features, labels)).batch(ROWS)
        history = model.fit(dataset, verbose=0).history
        return history, {weight.name: weight.numpy() for weight in model.weights}

    expected, weights = step(contextlib.nullcontext())
    found, moved = step(strategy.scope())
    for figure, values in expected.items():
        np.testing.assert_allclose(found[figure], values, atol=1e-5, err_msg=figure)
    for weight, value in weights.items():
        np.testing.assert_allclose(moved[weight], value, atol=1e-5, err_msg=weight)
