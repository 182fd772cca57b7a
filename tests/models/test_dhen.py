import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.models.dhen import DHEN, DHENConfig
from tests.factories import compact_schema
from tests.models import harness
from tests.models.test_wukong import GROUPS
from tests.reference import dhen as reference


@pytest.mark.parametrize("ensemble", ["sum", "concat"])
def test_parameters_follow_the_formula(ensemble):
    d, m, f, r, u = 8, 3, 6, 2, 5
    given = m if ensemble == "sum" else 5 * m

    def layer(n):
        modules = {
            "dot": (n * (n - 1) // 2 + 1) * u + (u + 1) * m * d,
            "attention": 4 * d**2 + 2 * d * f + f + 5 * d + n * m,
            "cross": n * d * (2 * r + 1) + n * m,
            "linear": n * m,
            "mlp": (n * d + 1) * u + (u + 1) * m * d,
        }
        return sum(modules.values()) + 2 * d + (n * given if n != given else 0)

    projections = sum(width + 1 for width in GROUPS) * d
    tower = (given * d + 1) * 5 + 5 + 1
    found = harness.beside_tables(harness.make("dhen", ensemble=ensemble))
    assert found == projections + layer(len(GROUPS)) + layer(given) + tower


@pytest.mark.parametrize(
    "settings",
    [
        {"ensemble": "concat"},
        {"modules": ["linear", "cross", "linear"], "ensemble": "concat"},
        {"modules": ["attention"], "outputs": 1},
    ],
)
def test_any_ensemble_equals_the_slow_version(settings):
    schema = compact_schema()
    model = harness.make("dhen", schema, **settings)
    features, _ = harness.batch(schema)
    tokens = model.encoder({name: value[:2] for name, value in features.items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    np.testing.assert_allclose(found, reference.logits(model, tokens), atol=1e-5)


def test_settings_are_checked():
    schema = compact_schema()
    with pytest.raises(lc.UsageError, match="heads is 3; give a divisor of dim"):
        DHEN(schema, dim=8, heads=3)
    assert DHEN(schema, dim=8, heads=3, modules=["linear"]).count_params()
    with pytest.raises(lc.UsageError, match=r"outputs is 1, .* 'dot', which needs two vectors"):
        DHEN(schema, modules=["dot"], outputs=1)
    with pytest.raises(lc.UsageError, match=r"modules\[0\] is 'conv'"):
        DHENConfig(modules=["conv"])
    with pytest.raises(lc.UsageError, match="modules is empty"):
        DHENConfig(modules=[])
