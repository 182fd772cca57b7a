"""AutoInt's parameters, its optional tower, and its settings."""

import numpy as np
import pytest

import loopctr_tf as lc
from tests.models import harness
from tests.reference import autoint as reference


@pytest.mark.parametrize("tower", [(), (5,)])
def test_parameters_and_logits_with_and_without_a_tower(tower):
    model = harness.make("autoint", tower_units=tower)
    d, widths = 8, (1, 4, 4, 4, 3, 1, 8, 5)
    projections = sum(width + 1 for width in widths) * d
    features = len(widths) * d
    top = (features + 1) * 5 + 5 + 1 if tower else features + 1
    assert harness.beside_tables(model) == projections + 2 * 4 * d**2 + top
    tokens = model.encoder({name: value[:2] for name, value in harness.batch()[0].items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    np.testing.assert_allclose(found, reference.logits(model, tokens), atol=1e-5)


def test_heads_divide_the_width():
    with pytest.raises(lc.UsageError, match="heads is 3; give a divisor of dim"):
        harness.make("autoint", heads=3)
