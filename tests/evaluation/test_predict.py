"""Exact metrics by depth: rows keep their order, depths their column, and the figures their worth."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.predict import Predictions, evaluate_run, head_metrics, predict
from loopctr_tf.models.base import Scores
from tests.exported import DEPTHS
from tests.factories import learnable_frame, random_frame, small_schema


class AffinityModel:
    """logit of depth l = (l + 1) * affinity; notes how long the histories are that it is shown."""

    def __init__(self, schema, loops=1):
        self.schema, self.loops = schema, loops
        self.lengths = []

    def heads_to(self, loops):
        return tuple(f"loop_{i}" for i in range((self.loops if loops is None else loops) + 1))

    def loops_of(self, head):
        return int(head.removeprefix("loop_")) if head else None

    def scores(self, features, training, heads):
        assert set(features) == set(self.schema.inputs)
        assert training is False
        tf.py_function(self.lengths.extend, [features["long_length"]], [])
        return Scores(features["affinity"][:, None] * tf.range(1.0, len(heads) + 1.0))


@pytest.mark.parametrize("loops", [None, 0, 2])
def test_every_row_has_its_label_group_and_probability_by_depth(loops):
    frame = random_frame(7)
    dataset = lc.read_dataset(frame, small_schema(), batch_size=3, group=True)
    found = predict(AffinityModel(small_schema(), loops=1), dataset, loops)
    np.testing.assert_array_equal(found.labels, frame["label"])
    assert [group.decode() for group in found.groups] == list(frame["user_id"])
    depths = np.arange(1, (1 if loops is None else loops) + 2)
    logits = frame["affinity"].to_numpy()[:, None] * depths
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert found.probabilities.dtype == np.float32
    assert found.heads == tuple(f"loop_{depth - 1}" for depth in depths)


def test_rows_without_their_group_are_refused():
    dataset = lc.read_dataset(random_frame(2), small_schema(), batch_size=2)
    with pytest.raises(UsageError, match="no group column 'user_id'; read it with group=True"):
        predict(AffinityModel(small_schema()), dataset)


def test_a_heads_figures_are_those_of_its_column():
    predictions = Predictions(
        labels=np.array([1.0, 0.0, 1.0, 0.0]),
        groups=np.array(["a", "a", "b", "b"]),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.6], [0.7, 0.4]]),
        heads=("loop_0", "loop_1"),
    )
    model = AffinityModel(small_schema())
    first, second = head_metrics(model, predictions)
    assert (first["loops"], second["loops"]) == (0, 1)
    assert (first["model"], second["head"]) == ("AffinityModel", "loop_1")
    # Depth 0 puts .9 and .6 over .2, and .9 alone over .7; depth 1 puts .6 alone, and over .4.
    assert (first["auc"], second["auc"]) == (0.75, 0.25)
    # User a is right at depth 0, user b at depth 1.
    assert (first["gauc"], second["gauc"]) == (0.5, 0.5)
    log_loss = -np.log([0.9, 0.8, 0.6, 0.3]).mean()
    assert first["ne"] == pytest.approx(log_loss / np.log(2))
    assert first["calibration"] == pytest.approx((0.9 + 0.2 + 0.6 + 0.7) / 2)
    # A head that stands for no number of loops has none in its row.
    lone = predictions._replace(probabilities=predictions.probabilities[:, :1], heads=("",))
    (row,) = head_metrics(model, lone)
    assert "loops" not in row
    assert row["auc"] == first["auc"]


def test_the_models_own_schema_reads_the_rows(prepared):
    schema = small_schema()
    model = AffinityModel(schema)
    evaluate_run(model, prepared, "test")
    assert max(model.lengths) == 9
    short = [s.replace(max_length=min(s.max_length, 4)) for s in schema.sequences]
    model = AffinityModel(schema.replace(sequences=short))
    depths, predictions = evaluate_run(model, prepared, "test", batch_size=7)
    assert max(model.lengths) == 4
    np.testing.assert_array_equal(predictions.labels, learnable_frame(60, seed=2)["label"])
    assert depths[0]["rows"] == 60


def test_a_trained_model_deeper_than_it_was_trained(tested, trained, raw_rows):
    depths, predictions = tested
    assert [row["loops"] for row in depths] == list(DEPTHS)
    assert trained.config.loops < DEPTHS[-1]
    for depth in (0, DEPTHS[-1]):
        some = {name: tf.constant(value[:8]) for name, value in raw_rows.items()}
        np.testing.assert_allclose(
            predictions.probabilities[:8, depth], trained.score(some, loops=depth), atol=1e-5
        )


def test_what_was_learned_holds_on_other_rows(tested):
    depths, predictions = tested
    for row in depths[:2]:
        assert row["auc"] > 0.8
    positive = predictions.probabilities[predictions.labels == 1, 0]
    negative = predictions.probabilities[predictions.labels == 0, 0]
    pairs = positive[:, None] - negative
    auc = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert depths[0]["auc"] == pytest.approx(auc)


@pytest.mark.parametrize(("loops", "received"), [(-1, "-1"), (9, "9"), (1.5, "1.5")])
def test_depths_that_cannot_be_are_one_line(trained, prepared, loops, received):
    with pytest.raises(UsageError) as error:
        evaluate_run(trained, prepared, loops=loops)
    assert str(error.value).startswith(f"loops is {received}; ")
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_told(trained, prepared):
    with pytest.raises(UsageError, match="name one of its folders train, valid, test"):
        evaluate_run(trained, prepared, "holdout")
