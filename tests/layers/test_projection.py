import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import GroupProjection
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    layer = GroupProjection(1)
    layer.build([[None, 2], [None, 1]])
    for weight, value in zip(layer.weights, ([[1], [10]], [3], [[100]], [-1]), strict=True):
        weight.assign(value)
    first, second = layer([tf.constant([[1.0, 2.0]]), tf.constant([[2.0]])])
    np.testing.assert_array_equal(first, [[24]])
    np.testing.assert_array_equal(second, [[199]])


GROUPS = [normal(2, 3, 5), normal(2, 4), normal(2, 2, 2, 5, seed=1)]


def reference(w, groups, places=(0, 1, 2)):
    projected = []
    for tokens, place in zip(groups, places, strict=True):
        h = np.zeros([*tokens.shape[:-1], 3])
        for index in np.ndindex(*h.shape[:-1]):
            h[index] = tokens[index] @ w[f"kernel_{place}"] + w[f"bias_{place}"]
        projected.append(h)
    return projected


def make(**kwargs):
    return GroupProjection(3, **kwargs)


def make_shared(**kwargs):
    return GroupProjection(3, shared=True, **kwargs)


CASES = {
    "three groups": Case(make, (GROUPS,), reference),
    "one group": Case(make, (GROUPS[:1],), lambda w, x: reference(w, x, [0])),
    "shared": Case(make_shared, (GROUPS,), lambda w, x: reference(w, x, [0, 1, 0])),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_groups_of_equal_width_share_weights_only_when_asked_to():
    assert harness.made(CASES["three groups"]).count_params() == 18 + 15 + 18
    assert harness.made(CASES["shared"]).count_params() == 18 + 15


def test_one_group_alone_is_projected_as_among_all():
    layer = harness.made(CASES["three groups"], "float32", jitter=0.4)
    (groups,) = harness.tensors(CASES["three groups"].inputs, "float32")
    for group, projected in enumerate(layer(groups)):
        np.testing.assert_array_equal(layer.project(groups[group], group), projected)


def test_a_wrong_number_of_groups_is_named():
    layer = GroupProjection(1)
    layer.build([[None, 2], [None, 2]])
    with pytest.raises(ValueError, match="got 1 groups; the layer was built for 2"):
        layer([tf.zeros([1, 2])])


def test_every_option_is_kept():
    harness.keeps_options(GroupProjection, units=3, shared=True)
