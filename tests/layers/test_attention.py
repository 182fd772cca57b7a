import math

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import MoEAttention, attend, masked_keys_values, project_queries
from loopctr_tf.layers.common import flat
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import attention, moe
from tests.reference.basics import unsaid


def read(keys, values, mask=None, sink=None, own=None, own_values=None):
    def column(numbers):
        return tf.constant(numbers, tf.float64)[None, None, :, None]  # [1, 1, T, 1]

    shared = masked_keys_values(
        column(keys),
        column(values),
        None if mask is None else tf.constant([mask]),
        None if sink is None else tf.constant([sink], tf.float64),
    )
    one = tf.ones([1, 1], tf.float64)
    tokens = one[None]
    if own is not None:
        tokens = tokens[None]
        own = masked_keys_values(column(own)[:, :, None], column(own_values)[:, :, None])
    return attend(project_queries(one, one, 1, shaped_like=tokens), shared, own).numpy().item()


def test_softmax_by_hand():
    keys, values = [math.log(3), 0.0, 0.0], [1.0, 10.0, 100.0]
    assert read(keys, values) == pytest.approx((3 + 10 + 100) / 5)
    assert read(keys, values, mask=[True, True, False]) == pytest.approx((3 + 10) / 4)
    assert read(keys, values, sink=0.0) == pytest.approx((3 + 10 + 100) / 6)
    assert read(keys, values, [True, False, False], math.log(2)) == pytest.approx(3 / 5)


HEADS, EXPERTS, ACTIVE, WIDTH = 2, 3, 2, 4


def reference(w, query, context=None, query_mask=None, context_mask=None):
    query_mask = np.ones(query.shape[:2], bool) if query_mask is None else query_mask
    if context is not None and context_mask is None:
        context_mask = np.ones(context.shape[:2], bool)
    y, counted = unsaid(query.shape), []
    for b in range(len(query)):
        queries = query[b, query_mask[b]]
        shown = queries if context is None else context[b, context_mask[b]]
        for place, token in zip(np.flatnonzero(query_mask[b]), queries, strict=True):
            y[b, place], routed = attention.attend(w, token, shown, HEADS, ACTIVE)
            counted.append(routed)
        if context is not None:
            counted += [moe.route(token, w["router/kernel"], ACTIVE) for token in shown]
    return y, moe.statistics(counted, EXPERTS)


def make(**kwargs):
    return MoEAttention(HEADS, EXPERTS, ACTIVE, **kwargs)


def make_without_sink(**kwargs):
    return MoEAttention(HEADS, EXPERTS, ACTIVE, sink=False, **kwargs)


QUERY, CONTEXT = normal(3, 3, WIDTH), normal(3, 4, WIDTH, seed=1)
QUERY_MASK, CONTEXT_MASK = mask_of([3, 2, 1], 3), mask_of([2, 0, 4], 4)
SELF = Case(make, (QUERY, None, QUERY_MASK), reference)
CROSS = Case(make, (QUERY, CONTEXT, QUERY_MASK, CONTEXT_MASK), reference)
CASES = {
    "self": SELF,
    "self, no sink": Case(make_without_sink, SELF.inputs, reference),
    "self, no mask": Case(make, (QUERY,), reference),
    "self, no sink, no mask": Case(make_without_sink, (QUERY,), reference),
    "cross": CROSS,
    "cross, no sink": Case(make_without_sink, CROSS.inputs, reference),
    "cross, no mask": Case(make, (QUERY, CONTEXT), reference),
}


class OwnAndShared(MoEAttention):
    """Tokens [R, N, G, d] that attend to a request's tokens and to those of their own candidate."""

    def call(self, tokens, shared, mask=None):
        rows, context = flat(tokens), flat(shared)
        gates, _ = self.route(rows)
        own = self.keys_values_by_head(
            self.project_keys(rows), self.value(rows, gates), tokens, sink=False
        )
        values = self.value(context, self.route(context).gates)
        shown = self.keys_values_by_head(self.project_keys(context), values, shared, mask)
        read = self.out(self.attend(rows, tokens, shown, own), gates)
        return tf.reshape(read, tf.shape(tokens))


def own_and_shared_reference(w, tokens, shared, mask=None):
    y = np.zeros_like(tokens)
    for r, c, g in np.ndindex(*tokens.shape[:-1]):
        context = [*(shared[r] if mask is None else shared[r, mask[r]]), *tokens[r, c]]
        y[r, c, g], _ = attention.attend(w, tokens[r, c, g], context, HEADS, ACTIVE)
    return y


@pytest.mark.parametrize("check", harness.IN_KERAS)
def test_layer(check, tmp_path):
    check(CROSS, tmp_path)


def test_self_attention_without_a_sink_lives_in_a_keras_model(tmp_path):
    harness.lives_in_a_keras_model(CASES["self, no sink"], tmp_path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_reference(case):
    harness.equals_reference(case)


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("mask", [None, mask_of([3, 0], 3)], ids=["no mask", "mask"])
def test_own_and_shared_keys_equal_the_reference(mask, sink):
    tokens, shared = normal(2, 2, 2, WIDTH), normal(2, 3, WIDTH, seed=1)
    harness.equals_reference(
        Case(
            lambda **kwargs: OwnAndShared(HEADS, EXPERTS, ACTIVE, sink=sink, **kwargs),
            (tokens, shared) if mask is None else (tokens, shared, mask),
            own_and_shared_reference,
        )
    )


# Numbers worked out by hand. One head, d = 1: logits are products of query and key.


def test_nothing_to_attend_to_by_hand():
    for sink in (None, 0.0, 5.0, -50.0):
        assert read([1.0, 2.0], [3.0, 4.0], [False, False], sink) == 0


def test_one_softmax_spans_own_and_shared_tokens_by_hand():
    shared, own = ([0.0, math.log(2)], [1.0, 10.0]), ([math.log(3)], [100.0])
    assert read(*shared, own=own[0], own_values=own[1]) == pytest.approx((1 + 20 + 300) / 6)
    with_sink = read(*shared, [True, False], math.log(4), *own)
    assert with_sink == pytest.approx((1 + 300) / (1 + 4 + 3))
    assert read(*shared, [False, False], None, *own) == pytest.approx(100)


def test_logits_are_divided_by_the_root_of_a_head_s_width():
    ones = tf.ones([1, 1, 1, 4], tf.float64)
    keys = tf.concat([math.log(3) / 2 * ones, 0 * ones], axis=2)
    values = tf.concat([ones, 0 * ones], axis=2)
    # 4 (ln 3 / 2) / sqrt 4 = ln 3.
    query = project_queries(ones[0, 0], tf.eye(4, dtype=tf.float64), 1, shaped_like=ones[0])
    np.testing.assert_allclose(attend(query, masked_keys_values(keys, values)), 0.75 * ones.numpy())


# Padding.


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("filler", [1.0, 1e30])
def test_padding_moves_no_real_token(filler, sink):
    case = CASES["cross" if sink else "cross, no sink"]
    layer = harness.made(case, "float32", jitter=0.4)
    expected, counted = layer(*harness.tensors(case.inputs, "float32"))
    for extra in (0, 3):

        def padded(x, mask, extra=extra):
            x = np.where(mask[..., None], x, filler * normal(*x.shape, seed=4))
            x = np.concatenate([x, np.full([3, extra, WIDTH], filler)], axis=1)
            mask = np.concatenate([mask, np.zeros([3, extra], bool)], axis=1)
            return harness.tensors([x, mask], "float32")

        query, query_mask = padded(QUERY, QUERY_MASK)
        context, context_mask = padded(CONTEXT, CONTEXT_MASK)
        y, statistics = layer(query, context, query_mask, context_mask)
        np.testing.assert_allclose(
            y.numpy()[:, :3][QUERY_MASK], expected.numpy()[QUERY_MASK], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(statistics, counted, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("tokens", [0, 3])
def test_nothing_to_attend_to_gives_zeros_and_finite_gradients(tokens, sink, dtype):
    layer = harness.made(CASES["cross" if sink else "cross, no sink"], dtype, jitter=0.4)
    inputs = harness.tensors(
        (QUERY, normal(3, tokens, WIDTH), None, np.zeros([3, tokens], bool)), "float32"
    )
    np.testing.assert_array_equal(tf.cast(layer(*inputs)[0], tf.float32), np.zeros(QUERY.shape))
    by_inputs, by_weights = harness.gradients(
        layer, inputs, lambda parts: tf.reduce_sum(tf.cast(parts[0], tf.float32) + 1)
    )
    for part in (*by_inputs, *by_weights):
        assert np.isfinite(tf.cast(part, tf.float32)).all()


# Properties.


def test_at_first_it_is_dense_attention():
    layer, dense = harness.made(SELF), MoEAttention(HEADS, 1, 1, name="layer", dtype="float64")
    inputs = harness.tensors(SELF.inputs)
    dense(*inputs)
    harness.copy_weights(layer, dense)
    np.testing.assert_allclose(dense(*inputs)[0], layer(*inputs)[0], rtol=1e-10, atol=1e-12)


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        MoEAttention(3)(tf.zeros([1, 2, 4]))


def test_every_option_is_kept():
    harness.keeps_options(
        MoEAttention,
        heads=1,
        experts=3,
        active_experts=1,
        sink=False,
        equal_experts=False,
        zero_outputs=True,
    )
