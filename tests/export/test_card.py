"""The model card says what the model is, with figures that are counted here a second time."""

import re

import pytest
import tensorflow as tf
import yaml

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.export.card import model_card
from loopctr_tf.models import DLRM
from loopctr_tf.training.settings import RunConfig
from tests.factories import compact_schema, small_schema, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def functions():
    """Signatures in name, inputs and outputs; what they compute is not looked at."""
    specs = {
        name: tf.TensorSpec(spec.shape, tf.as_dtype(spec.dtype), name)
        for name, spec in small_schema().inputs.items()
    }

    def point(**features):
        return {"probability": tf.identity(features["age"])}

    def regress(inputs):
        return {"outputs": tf.strings.to_number(inputs)}

    rows = tf.TensorSpec([None], tf.string, "inputs")
    return {
        "serving_default": tf.function(point).get_concrete_function(**specs),
        "regress": tf.function(regress).get_concrete_function(inputs=rows),
    }


def _cells(card: str, first: str) -> list[str]:
    """The cells of the table row that begins with ``first``."""
    line = next(line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_parameters_are_those_of_the_whole_and_of_zero_loops(model, functions):
    card = model_card(model, functions)
    total = model.count_params()
    loop = model.loop_block_of(0).count_params()
    assert loop > 0
    assert _cells(card, "all")[1] == f"{total:,}"
    assert _cells(card, "read at zero loops")[1] == f"{total - loop:,}"
    assert _cells(card, "Loop Block alone")[1] == f"{loop:,}"


def test_every_loop_block_of_a_stack_is_left_out_at_zero_loops(functions):
    stack = tiny_model(lc.StackCTR, loops=2)
    blocks = sum(stack.loop_block_of(depth).count_params() for depth in range(2))
    card = model_card(stack, functions)
    assert card.startswith("# StackCTR\n")
    assert _cells(card, "Loop Block alone")[1] == f"{blocks:,}"


def test_signatures_are_listed_with_types_and_shapes(model, functions):
    card = model_card(model, functions)
    _, inputs, outputs = _cells(card, "`serving_default`")
    listed = inputs.split("<br>")
    assert len(listed) == len(small_schema().inputs)
    assert "`movie_id` string [any]" in listed
    assert "`history_genres` string [any, any, any]" in listed
    assert "`history_length` int32 [any]" in listed
    assert outputs == "`probability` float32 [any]"
    assert _cells(card, "`regress`")[1:] == ["`inputs` string [any]", "`outputs` float32 [any]"]
    assert "rank_loop_0" not in card


def test_features_are_listed_with_side_table_and_limits(model, functions):
    card = model_card(model, functions)
    assert _cells(card, "`movie_id`")[1:] == ["categorical", "item", "string, 12 known"]
    assert _cells(card, "`zip_code`")[1:] == ["categorical", "user", "string, hashed"]
    assert _cells(card, "`device`")[1:] == ["categorical", "context", "int64, 3 known"]
    assert _cells(card, "`age`")[1:] == ["numeric", "user", "number, 25 where missing"]
    assert _cells(card, "`genres`")[3] == "string, 3 known, at most 3 a row"
    assert _cells(card, "`history_genres`")[2] == "user"
    assert _cells(card, "`long_length`")[1] == "sequence, at most 9 events, compressed"


def test_the_configuration_can_be_read_back(model, functions):
    card = model_card(model, functions)
    text = re.search(r"```yaml\n(.*?)```", card, re.DOTALL).group(1)
    config = RunConfig.from_dict(yaml.safe_load(text))
    assert (config.model, config.execution) == (model.config, model.execution)


def test_figures_by_depth_are_shown_where_they_are_given(model, functions):
    assert "None were given with this export." in model_card(model, functions)
    row = {"gauc": 0.6, "ne": 0.87654, "calibration": 1.0}
    metrics = {"valid": [{"loops": 0, "auc": 0.75, **row}, {"loops": 2, "auc": 0.7512, **row}]}
    card = model_card(model, functions, metrics=metrics)
    assert _cells(card, "LoopCTR(0/2)")[1:] == ["0.7500", "0.6000", "0.8765", "1.0000"]
    assert _cells(card, "LoopCTR(2/2)")[1] == "0.7512"
    assert "Validation split" in card
    assert "Test split" not in card
    assert "None were given" not in card
    assert "Protocol" not in card
    assert "Protocol of the data: bars." in model_card(
        model, functions, metrics={**metrics, "protocol": "bars"}
    )


def test_a_model_without_loops_has_figures_of_its_own(functions):
    dlrm = DLRM(compact_schema(), dim=4, bottom_units=(3,), tower_units=(3,))
    row = {"model": "DLRM", "head": "", "auc": 0.75, "gauc": 0.6, "ne": 0.87654, "calibration": 1.0}
    card = model_card(dlrm, functions, metrics={"test": [row]})
    assert card.startswith("# DLRM\n")
    assert _cells(card, "DLRM")[1:] == ["0.7500", "0.6000", "0.8765", "1.0000"]
    assert "Trained with" not in card


def test_bad_input_is_told_as_exported(model, functions):
    assert "`reject`: A request with a length" in model_card(model, functions)
    assert "`repair`: Lengths are clipped" in model_card(model, functions, bad_input="repair")
    with pytest.raises(UsageError, match="bad_input is 'ignore'"):
        model_card(model, functions, bad_input="ignore")


def test_versions_and_loops_are_told(model, functions):
    card = model_card(model, functions)
    assert f"- loopctr-tf {lc.__version__}" in card
    assert f"- tensorflow {tf.__version__}" in card
    assert "Trained with 2 loops;" in card
    assert card.endswith("\n")
    assert not card.endswith("\n\n")


def test_the_size_of_a_users_state_is_told(model, functions):
    def encode(age):
        return {
            "state_mask": tf.ones([tf.size(age), 7], tf.bool),
            "state_keys": tf.reshape(tf.tile(age[:, None], [1, 12]), [-1, 3, 4]),
            "state_version": tf.strings.as_string(age),
        }

    spec = tf.TensorSpec([None], tf.float32, "age")
    encode = tf.function(encode).get_concrete_function(age=spec)
    card = model_card(model, {**functions, "encode_user_loop_0": encode})
    bytes_of = [c for c in card.splitlines() if c.startswith("| `encode_user_loop_0` |")][-1]
    assert bytes_of == f"| `encode_user_loop_0` | {7 + 4 * 12} |"
    assert "User states" not in model_card(model, functions)
