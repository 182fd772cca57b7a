import dataclasses
import json

import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.training.settings import RunConfig, TrainingConfig


def message(error) -> str:
    """The text of a UsageError, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


# One value.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dim": 0}, "dim is 0; give 1 or more"),
        ({"heads": 3, "dim": 8}, "heads is 3; give a divisor of dim (8)"),
        ({"loops": -1}, "loops is -1; give 0 or more"),
        ({"loops": 9}, "max_loops is 8; give at least loops (9)"),
        ({"experts": 2, "active_experts": 3}, "active_experts is 3; give at most experts (2)"),
        ({"active_experts": 0}, "active_experts is 0; give 1 or more"),
        ({"streams": 0}, "streams is 0; give 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; give a rate in [0, 1)"),
        ({"dropout": float("nan")}, "dropout is nan; give a rate in [0, 1)"),
        ({"balance_weight": -0.1}, "balance_weight is -0.1; give 0 or more"),
        ({"tower_units": [8, 0]}, "tower_units is (8, 0); give positive widths"),
        ({"embedding_dim": 0}, "embedding_dim is 0; give 1 or more, or null for dim"),
        ({"supervision": "first"}, "supervision is 'first'; choose 'all', 'last'"),
        ({"loop_execution": "xla"}, "loop_execution is 'xla'; choose 'auto', 'while', 'unrolled'"),
    ],
)
def test_bad_model_values_name_the_setting_the_value_and_the_remedy(settings, expected):
    with pytest.raises(UsageError) as from_dict:
        LoopCTRConfig.from_dict(settings)
    with pytest.raises(UsageError) as direct:
        LoopCTRConfig(**settings)
    assert message(from_dict) == message(direct) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 0}, "epochs is 0; give 1 or more"),
        ({"batch_size": -2}, "batch_size is -2; give 1 or more"),
        ({"learning_rate": 0}, "learning_rate is 0.0; give more than 0"),
        ({"weight_decay": -1}, "weight_decay is -1.0; give 0 or more"),
        ({"clip_norm": -1}, "clip_norm is -1.0; give 0 or more"),
        ({"ema_momentum": 1}, "ema_momentum is 1.0; give a value in [0, 1)"),
        (
            {"table_optimizer": "adagrad"},
            "table_optimizer is 'adagrad'; choose 'adamw', 'lazy_adamw', 'rowwise_adagrad'",
        ),
        (
            {"table_optimizer": "lazy_adamw", "table_learning_rate": 0},
            "table_learning_rate is 0.0; give more than 0, or null for learning_rate",
        ),
        (
            {"table_optimizer": "lazy_adamw", "table_weight_decay": -1},
            "table_weight_decay is -1.0; give 0 or more",
        ),
        (
            {"table_optimizer": "adamw", "table_learning_rate": 0.1},
            "table_learning_rate is 0.1; leave it out, or set table_optimizer to lazy_adamw or",
        ),
        (
            {"table_optimizer": "adamw", "table_weight_decay": 0.1},
            "table_weight_decay is 0.1; leave it out, or set table_optimizer to lazy_adamw or",
        ),
        ({"strategy": "tpu"}, "strategy is 'tpu'; choose 'none', 'mirrored'"),
        ({"architecture": "dcn"}, "architecture is 'dcn'; choose 'loopctr', 'stackctr'"),
    ],
)
def test_bad_training_values_name_the_setting_the_value_and_the_remedy(settings, expected):
    with pytest.raises(UsageError) as from_dict:
        TrainingConfig.from_dict(settings)
    with pytest.raises(UsageError) as direct:
        TrainingConfig(**settings)
    assert message(from_dict) == message(direct)
    assert message(from_dict).startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dim": 8.0}, "dim is 8.0, a float; give a int"),
        ({"dim": "8"}, "dim is '8', a str; give a int"),
        ({"dim": True}, "dim is True, a bool; give a int"),
        ({"dim": None}, "dim is None, a NoneType; give a int"),
        ({"sink": 1}, "sink is 1, a int; give a bool"),
        ({"dropout": "high"}, "dropout is 'high', a str; give a float"),
        ({"dropout": False}, "dropout is False, a bool; give a float"),
        ({"tower_units": 8}, "tower_units is 8; give a list such as [128, 64]"),
        ({"tower_units": [8, "x"]}, "tower_units is 'x', a str; give a int"),
        ({"embedding_dim": 1.5}, "embedding_dim is 1.5, a float; give a int"),
        ({"activation": 3}, "activation is 3, a int; give a str"),
    ],
)
def test_wrong_types_are_refused(settings, expected):
    with pytest.raises(UsageError) as from_dict:
        LoopCTRConfig.from_dict(settings)
    with pytest.raises(UsageError) as direct:
        LoopCTRConfig(**settings)
    assert message(from_dict) == message(direct) == expected


def test_whole_numbers_serve_as_floats_and_lists_as_tuples():
    config = LoopCTRConfig(dropout=0, tower_units=[8, 4])
    assert (config.dropout, type(config.dropout)) == (0.0, float)
    assert config.tower_units == (8, 4)
    assert hash(config) == hash(LoopCTRConfig(dropout=0.0, tower_units=(8, 4)))


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(UsageError) as error:
        LoopCTRConfig.from_dict({"head": 2})
    assert message(error) == "model setting 'head' does not exist; did you mean 'heads'?"
    with pytest.raises(UsageError) as error:
        TrainingConfig.from_dict({"lerning_rate": 0.1})
    assert "did you mean 'learning_rate'?" in message(error)
    with pytest.raises(UsageError) as error:
        LoopCTRConfig.from_dict({"zzz": 2})
    assert "; known are dim, heads, " in message(error)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoopCTRConfig().dim = 3


# A whole run.


def test_dictionary_round_trip_is_plain_json():
    model = LoopCTRConfig(dim=32, tower_units=(9,), embedding_dim=4, supervision="last")
    assert LoopCTRConfig.from_dict(json.loads(json.dumps(model.to_dict()))) == model
    training = TrainingConfig(epochs=3, seed=5)
    assert TrainingConfig.from_dict(json.loads(json.dumps(training.to_dict()))) == training


def test_yaml_round_trip_keeps_every_setting(tmp_path):
    config = RunConfig(
        LoopCTRConfig(dim=32, heads=8, tower_units=(9, 7), sink=False),
        TrainingConfig(learning_rate=3e-4, strategy="mirrored"),
    )
    config.save(tmp_path / "config.yaml")
    assert RunConfig.load(tmp_path / "config.yaml") == config


def test_no_file_means_defaults(tmp_path):
    assert RunConfig.load() == RunConfig()
    (tmp_path / "empty.yaml").write_text("")
    assert RunConfig.load(tmp_path / "empty.yaml") == RunConfig()


def test_overrides_win_over_the_file_and_may_leave_the_section_out(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {dim: 16, heads: 2}\ntraining:\n  learning_rate: 1e-2\n")
    config = RunConfig.load(
        path,
        [
            "dim=32",
            "model.tower_units=[7, 5]",
            "training.epochs=4",
            "learning_rate=1e-3",
            "embedding_dim=null",
            "sink=false",
            "monitor=val_loop_1_auc",
            " loops = 2 ",
        ],
    )
    assert config.model == LoopCTRConfig(
        dim=32, heads=2, tower_units=(7, 5), embedding_dim=None, sink=False, loops=2
    )
    assert config.training == TrainingConfig(
        epochs=4, learning_rate=0.001, monitor="val_loop_1_auc"
    )


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("dim", "--set 'dim' is not a setting; write name=value, e.g. dim=32"),
        ("dimm=8", "--set 'dimm' is no setting; did you mean 'dim'?"),
        ("modl.dim=8", "--set 'modl.dim' names an unknown section; use model or training"),
        ("training.dim=8", "training setting 'dim' does not exist"),
        ("model.hheads=8", "model setting 'hheads' does not exist; did you mean 'heads'?"),
        ("dim=eight", "dim is 'eight', a str; give a int"),
        ("tower_units=[8", "--set tower_units='[8' is not a YAML value; quote it"),
        ("loops=-1", "loops is -1; give 0 or more"),
    ],
)
def test_bad_overrides_name_the_pair_and_the_remedy(pair, expected):
    with pytest.raises(UsageError) as error:
        RunConfig.load(None, [pair])
    assert message(error).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- dim", "holds no mapping; write `model:` and so on"),
        ("modle: {dim: 8}", "has an unknown section 'modle'; use model or training"),
        ("model: 8", "section 'model' of configuration"),
        ("model: {dim: 8", "is not YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, text, expected):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        RunConfig.load(path)
    assert expected in message(error)
    assert str(path) in message(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError) as error:
        RunConfig.load(tmp_path / "none.yaml")
    assert "none.yaml' cannot be read: No such file or directory" in message(error)
