"""DCN-V2's parameters, its other structure and rank, and its settings."""

import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.models.dcnv2 import DCNv2
from tests.models import harness
from tests.reference import dcnv2 as reference

VECTORS = sum(width + 1 for width in (1, 4, 4, 4, 3, 1, 8, 5)) * 8
WIDTH = 8 * 8


@pytest.mark.parametrize(
    ("rank", "structure", "tower"),
    [(3, "stacked", (6, 5)), (None, "parallel", (6, 5)), (None, "stacked", ())],
)
def test_parameters_and_logits_of_every_structure(rank, structure, tower):
    settings = {"projection_dim": rank, "structure": structure, "tower_units": tower}
    model = harness.make("dcnv2", cross_layers=3, **settings)
    cross = WIDTH**2 + WIDTH if rank is None else 2 * WIDTH * rank + WIDTH
    deep = (WIDTH + 1) * 6 + (6 + 1) * 5 if tower else 0
    logit = (5 if tower else WIDTH) + 1 + (WIDTH if structure == "parallel" else 0)
    assert harness.beside_tables(model) == VECTORS + 3 * cross + deep + logit
    tokens = model.encoder({name: value[:2] for name, value in harness.batch()[0].items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    # Three crosses of weights that were moved far make logits of any size.
    np.testing.assert_allclose(found, reference.logits(model, tokens), rtol=1e-4, atol=1e-4)


def test_a_models_settings_are_checked():
    with pytest.raises(
        lc.UsageError, match=r"projection_dim is 32, .* less than half of the width 64"
    ):
        harness.make("dcnv2", projection_dim=32)
    with pytest.raises(lc.UsageError, match="tower_units is empty and structure is 'parallel'"):
        harness.make("dcnv2", tower_units=[])
    with pytest.raises(lc.UsageError, match="structure is 'beside'"):
        DCNv2.config_class(structure="beside")
