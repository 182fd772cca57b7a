"""Products of matrices in bfloat16 and the rest in float32: near float32 in all that a model does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from tests.factories import compact_schema, random_batch, tiny_model
from tests.operations import watched

MIXED = "mixed_bfloat16"
ALL_EXPERTS = {"active_experts": 3}
"""No token chooses, so that outputs differ by rounding alone and never by another choice."""


@pytest.fixture(scope="module")
def batch():
    return random_batch(12)


def step(model, features, labels):
    """Logits, router statistics, and the gradient of the mean loss of all depths by weight."""
    with tf.GradientTape() as tape:
        logits, statistics = model(features, training=True, return_statistics=True)
        labels = tf.repeat(labels[:, None], logits.shape[1], axis=1)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    return logits, statistics, [*map(tf.convert_to_tensor, gradients)]


@pytest.fixture(scope="module")
def models():
    """(in float32, mixed), of the same weights."""
    settings = {**ALL_EXPERTS, "history_mean": True, "global_norm": True}
    settings |= {"schema": compact_schema(), "loops": 1}
    return tiny_model(**settings), tiny_model(precision=MIXED, **settings)


def test_outputs_and_gradients_are_near_those_of_float32(models, batch):
    exact, mixed = (step(model, *batch) for model in models)
    assert {x.dtype for x in tf.nest.flatten(mixed)} == {tf.float32}
    (logits, statistics, gradients), (near, counted, slopes) = exact, mixed
    assert float(tf.reduce_max(tf.abs(logits))) > 1.5
    np.testing.assert_allclose(near, logits, rtol=0, atol=0.12)
    np.testing.assert_allclose(counted, statistics, rtol=0, atol=0.25)
    away = tf.linalg.global_norm([a - b for a, b in zip(slopes, gradients, strict=True)])
    assert float(away / tf.linalg.global_norm(gradients)) < 0.15


def test_products_alone_are_bfloat16(models, batch):
    with watched() as seen:
        logits = models[1](batch[0])
    assert seen.types["MatMul"] == {tf.bfloat16, tf.float32}  # routers and the last layer
    assert seen.types["BatchMatMulV2"] == {tf.bfloat16}
    for kind in ("Softmax", "Rsqrt", "Tanh", "Erf", "TopKV2"):
        assert seen.types[kind] <= {tf.float32, tf.int32}, kind
    # Of half precision, every other logit would be one that bfloat16 can hold.
    assert np.all(tf.cast(tf.cast(logits, tf.bfloat16), tf.float32) != logits)


def test_scores_are_those_of_a_call_at_every_depth(models, batch):
    logits = models[1](batch[0], loops=2)
    for loops in (0, 2):
        expected = tf.sigmoid(logits[:, loops])
        np.testing.assert_allclose(models[1].score(batch[0], loops), expected, atol=1e-3)


def test_numbers_are_standardized_before_they_are_rounded():
    values = compact_schema().to_dict()
    (age,) = (feature for feature in values["features"] if feature["name"] == "age")
    age["mean"], age["std"] = 1e6, 10.0
    model = tiny_model(schema=lc.Schema.from_dict(values), loops=0, precision=MIXED)
    features, _ = random_batch(3)
    features["age"] = tf.constant([1e6 - 10, 1e6, 1e6 + 10])
    # As Keras hands features from the model to the encoder.
    model.call = lambda features, training=None: model.encoder(features)
    np.testing.assert_array_equal(model(features).request[0][:, 0], [-1.0, 0.0, 1.0])


# Where the precision comes from.


@pytest.fixture
def global_policy():
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def compute_types(model):
    layers = [layer for layer in model.submodules if isinstance(layer, keras.layers.Layer)]
    weighty = [layer for layer in layers if layer.weights and "tower" not in layer.name]
    return {layer.compute_dtype for layer in weighty if layer.name != "head"}


def test_the_global_policy_counts_where_the_settings_name_none(global_policy, batch):
    global_policy(MIXED)
    settings = {"schema": compact_schema(), "loops": 0, **ALL_EXPERTS}
    model, single = tiny_model(**settings), tiny_model(**settings, precision="float32")
    assert (model.execution.precision, single.execution.precision) == (MIXED, "float32")
    assert (compute_types(model), compute_types(single)) == ({"bfloat16"}, {"float32"})
    assert {weight.dtype for weight in model.weights} == {tf.float32}
    logits = single(batch[0])
    # A label between 0 and 1 stays as it is.
    for one in (model, single):
        one.compile(run_eagerly=True)
    labels = tf.fill([12], 0.3003)
    losses = [one.test_on_batch(batch[0], labels)[1] for one in (model, single)]
    expected = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits[:, 0])
    np.testing.assert_allclose(losses[1], tf.reduce_mean(expected), rtol=1e-6)
    np.testing.assert_allclose(losses[0], losses[1], atol=0.02)
    global_policy("float32")
    np.testing.assert_array_equal(single(batch[0]), logits)
    assert tiny_model(**settings).execution.precision == "float32"
    assert type(model).from_config(model.get_config()).execution.precision == MIXED
    global_policy("mixed_float16")
    with pytest.raises(lc.UsageError, match="global policy is 'mixed_float16', which these models"):
        tiny_model(**settings)


# Training, and what is kept of it.


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        pytest.param({}, {}, id="adamw"),
        pytest.param({"tables": "lazy_adamw"}, {"recompute": True}, id="lazy_adamw, recompute"),
    ],
)
def test_a_few_steps_lower_the_loss(optimizer, settings, tmp_path):
    settings = {
        "schema": compact_schema(),
        "loops": 1,
        "streams": 1,
        "precision": MIXED,
        "global_norm": True,
        **settings,
    }
    model = tiny_model(**settings)
    model.compile(lc.optimizers.adamw(0.02, clip_norm=1.0, **optimizer), run_eagerly=True)
    rows = random_batch(12, schema=compact_schema())
    losses = [model.train_on_batch(*rows, return_dict=True)["loss"] for _ in range(3)]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0] - 0.05
    assert {weight.dtype for weight in model.weights} == {tf.float32}
    if optimizer:
        return
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.execution.precision == MIXED
    np.testing.assert_array_equal(loaded(rows[0]), model(rows[0]))
    model.save_weights(tmp_path / "w.weights.h5")
    single = tiny_model(schema=compact_schema(), seed=9, loops=1, streams=1, global_norm=True)
    single.load_weights(tmp_path / "w.weights.h5")
    for weight, kept in zip(single.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, kept)
