"""Padding never moves a score, histories keep their recent events, sequences see no global token."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.models.loopctr.loops import join_tokens
from tests.factories import HISTORY, LONG, random_batch, random_frame, small_schema, tiny_model

SEQUENCES = {
    "history": ("history_movie", "history_genres", "history_gap"),
    "long": ("long_movie", "long_rating"),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(loops=2)


@pytest.fixture(scope="module")
def features():
    """Eight rows; some histories are empty, some full."""
    features, _ = random_batch(8, seed=34)
    assert int(tf.reduce_min(features["history_length"])) == 0
    assert int(tf.reduce_max(features["history_length"])) == HISTORY
    assert int(tf.reduce_min(features["long_length"])) == 0
    assert int(tf.reduce_max(features["long_length"])) == LONG
    return features


def junk(rng, like: tf.Tensor, shape) -> np.ndarray:
    """What no padding should hold: known and unknown ids, NaN, infinities and huge numbers."""
    if like.dtype == tf.string:
        return rng.choice(np.array(["m1", "m2", "drama", "comedy", "junk"], object), shape)
    return rng.choice(np.array([np.nan, np.inf, -np.inf, 1e38, -3.0], np.float32), shape)


def with_junk(features, sequence: str, more: int, seed: int = 0) -> dict:
    """The features with junk as padding of one sequence, and ``more`` positions of it."""
    rng = np.random.default_rng(seed)
    changed = dict(features)
    lengths = features[f"{sequence}_length"].numpy()
    for name in SEQUENCES[sequence]:
        value = features[name]
        rows, width, *rest = value.shape
        filled = junk(rng, value, (rows, width + more, *rest))
        for row, length in enumerate(lengths):
            filled[row, :length] = value[row, :length].numpy()
        changed[name] = tf.constant(filled, value.dtype)
    return changed


def empty(features, sequences) -> dict:
    """The features without any event in ``sequences``, junk in the places left."""
    changed = dict(features)
    for sequence in sequences:
        changed[f"{sequence}_length"] = tf.zeros_like(features[f"{sequence}_length"])
        changed = with_junk(changed, sequence, more=1)
    return changed


# Padding.


def test_padding_moves_neither_scores_nor_statistics(model, features):
    expected, statistics = model(features, return_statistics=True)
    changed = with_junk(with_junk(features, "history", 0), "long", 3)
    logits, changed_statistics = model(changed, return_statistics=True)
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    np.testing.assert_allclose(changed_statistics, statistics, rtol=1e-4, atol=1e-4)


def test_padding_moves_no_score_with_other_options(features):
    """Without sink, recency and streams, and with the mean of the history beside the tower."""
    model = tiny_model(loops=1, sink=False, recency_embedding=False, streams=1, history_mean=True)
    changed = with_junk(with_junk(features, "history", 2), "long", 2)
    np.testing.assert_allclose(model(changed), model(features), atol=2e-5)


def test_a_row_scores_the_same_alone_and_in_a_batch(model, features):
    expected = model(features).numpy()
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in features.items()}
        for sequence, fields in SEQUENCES.items():
            length = int(alone[f"{sequence}_length"][0])
            alone.update({name: alone[name][:, :length] for name in fields})
        np.testing.assert_allclose(model(alone)[0], expected[row], atol=2e-5)


def test_values_of_a_multi_valued_feature_may_be_padded_further(model, features):
    padded = tf.pad(features["genres"], [[0, 0], [0, 2]], constant_values="")
    changed = {**features, "genres": padded}
    np.testing.assert_allclose(model(changed), model(features), atol=1e-6)


def test_routers_count_real_tokens_only(model, features):
    """Assignments of every router, counted by hand."""
    _, statistics = model(with_junk(features, "long", 3), return_statistics=True)
    counts = statistics[:, :, 0].numpy().sum(axis=-1)  # [routers, depths]
    k, rows, queries, global_tokens = 2, 8, 2, 6
    short = int(tf.reduce_sum(features["history_length"]))
    long = queries * int(tf.math.count_nonzero(features["long_length"]))
    sequence, everything = short + long, short + long + rows * global_tokens
    entry = [k * everything, 0, 0]
    loop = [0, k * everything, k * everything]
    np.testing.assert_allclose(counts[:4], [entry, entry, loop, loop])
    # At the exit, sequence tokens are keys and values of the attention and never reach the FFN.
    np.testing.assert_allclose(counts[4], [k * (sequence + rows * global_tokens)] * 3)
    np.testing.assert_allclose(counts[5], [k * rows * global_tokens] * 3)


# Empty histories.


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("sequences", [["history"], ["history", "long"]], ids=str)
def test_an_empty_history_has_finite_scores_and_gradients(features, sequences, sink):
    model = tiny_model(loops=1, sink=sink)
    changed = empty(features, sequences)
    with tf.GradientTape() as tape:
        logits = model(changed)
        loss = tf.reduce_sum(logits)
    assert np.isfinite(logits).all()
    for weight, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        if gradient is not None:
            assert np.isfinite(tf.convert_to_tensor(gradient)).all(), weight.name
    # As many places as there are events: none.
    bare = dict(changed)
    for sequence in sequences:
        bare.update({name: changed[name][:, :0] for name in SEQUENCES[sequence]})
    np.testing.assert_allclose(model(bare), logits, atol=2e-5)


# Long histories.


def test_the_most_recent_events_stay(model):
    """A request may hold more events than ``max_length``; the scores are those of the last ones."""
    rng = np.random.default_rng(0)
    features, _ = random_batch(4, seed=2)
    whole, cut = dict(features), dict(features)
    for sequence, limit in (("history", HISTORY), ("long", LONG)):
        lengths = np.array([limit + 4, limit, limit + 1, 2], np.int32)
        places = limit + 6
        whole[f"{sequence}_length"] = tf.constant(lengths)
        cut[f"{sequence}_length"] = tf.constant(np.minimum(lengths, limit))
        for name in SEQUENCES[sequence]:
            value = features[name]
            shape = (4, places, *value.shape[2:])
            events = (
                rng.choice(np.array(["m1", "m2", "drama", "m5"], object), shape)
                if value.dtype == tf.string
                else rng.normal(size=shape).astype(np.float32)
            )
            recent = [
                row[max(n - limit, 0) :][:limit] for row, n in zip(events, lengths, strict=True)
            ]
            whole[name] = tf.constant(events)
            cut[name] = tf.constant(np.stack(recent))
    expected = model(cut).numpy()
    np.testing.assert_allclose(model(whole), expected, atol=2e-5)
    # The oldest of the kept events does matter.
    changed = {**cut, "history_gap": cut["history_gap"] + tf.one_hot([0] * 4, HISTORY) * 9.0}
    assert (np.abs(model(changed) - expected).max(axis=1) > 1e-4).all()


def test_the_order_of_events_matters_only_by_recency(features):
    def reversed_history(features):
        changed = dict(features)
        for name in SEQUENCES["history"]:
            changed[name] = tf.reverse_sequence(features[name], features["history_length"], 1)
        return changed

    assert int(tf.reduce_max(features["history_length"])) > 1
    ordered, unordered = tiny_model(loops=1), tiny_model(loops=1, recency_embedding=False)
    assert np.abs(ordered(reversed_history(features)) - ordered(features)).max() > 1e-3
    np.testing.assert_allclose(
        unordered(reversed_history(features)), unordered(features), atol=2e-5
    )


# What sees what.


def entered(model, features):
    """The user's side after the Entry Block, and all global tokens of rows."""
    candidates = {f.name for f in model.schema.candidate_features}
    names = model.schema.inputs
    user = {name: features[name] for name in names if name not in candidates}
    items = {name: features[name][:, None] for name in names if name in candidates}
    side = model.user_side(model.encoder(user))
    state = model.entered(side, side.tokens, training=False)
    streams = model.candidate_tokens(model.encoder(items).candidate)
    tokens, _ = model.entry_block.encode_globals(streams, training=False)
    return state, join_tokens(state.tokens, tokens)


def sequence_streams(model, features, loops) -> list[tf.Tensor]:
    """All streams of the sequence tokens after every loop."""
    state, tokens = entered(model, features)
    sequence, streams = state.sequence, list(state.sequence)
    for _ in range(loops):
        (sequence, tokens), _ = model.loop_block((sequence, state.mask, tokens), training=False)
        streams.extend(sequence)
    return streams


def test_sequence_tokens_depend_on_no_global_token_at_any_depth(model, features):
    others, _ = random_batch(8, seed=9)
    global_names = {feature.name for feature in model.schema.features}
    changed = {
        name: others[name] if name in global_names else value for name, value in features.items()
    }
    before, after = (sequence_streams(model, given, 3) for given in (features, changed))
    assert len(before) == 4 * model.config.streams
    for one, other in zip(before, after, strict=True):
        # Not bit by bit: how many rows an expert's product has may choose another kernel.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # Other events do change them.
    moved = {**features, "history_gap": features["history_gap"] + 5.0}
    assert all(
        np.abs(one - other).max() > 1e-3
        for one, other in zip(before, sequence_streams(model, moved, 3), strict=True)
    )


def test_global_tokens_depend_on_each_other_only_through_the_loop(model, features):
    """At depth 0 a token's way to the tower is its own; a loop mixes the globals."""
    item = {**features, "affinity": features["affinity"] + 1.0}
    mixed = []
    for given in (features, item):
        state, tokens = entered(model, given)
        (_, looped), _ = model.loop_block((state.sequence, state.mask, tokens), training=False)
        mixed.append((tokens[0], looped[0]))
    before, looped = (np.abs(a - b).max(axis=(0, 1, 3)) for a, b in zip(*mixed, strict=True))
    affinity = 5  # the last of age, zip_code, device, movie_id, genres, affinity
    assert (before > 0).tolist() == [place == affinity for place in range(6)]
    assert (looped > 0).all()


def test_frames_with_empty_histories_alone_are_scored():
    frame = random_frame(3)
    for fields in SEQUENCES.values():
        for name in fields:
            frame[name] = [[], [], []]
    features, _ = next(iter(lc.read_dataset(frame, small_schema())))
    assert features["history_movie"].shape == [3, 0]
    assert np.isfinite(tiny_model()(features)).all()
