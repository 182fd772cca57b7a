"""Settings of a run: values and types, sections, overrides, and the schema for editors."""

import json

import pydantic
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.models import MODELS, config_class, model_class
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.training.settings import RunConfig, TrainingConfig
from tests.factories import compact_schema


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
        ({"dropout": 1.0}, "dropout is 1.0; give less than 1"),
        ({"dropout": float("nan")}, "dropout is nan, a float; give a finite number"),
        ({"balance_weight": -0.1}, "balance_weight is -0.1; give 0 or more"),
        ({"tower_units": [8, 0]}, "tower_units[1] is 0; give 1 or more"),
        ({"supervision": "first"}, "supervision is 'first'; choose 'all' or 'last'"),
        ({"dim": 8.0}, "dim is 8.0, a float; give a whole number"),
        ({"dim": "8"}, "dim is '8', a str; give a whole number"),
        ({"dim": True}, "dim is True, a bool; give a whole number"),
        ({"sink": 1}, "sink is 1, an int; give true or false"),
        ({"dropout": "high"}, "dropout is 'high', a str; give a number"),
        ({"dropout": False}, "dropout is False, a bool; give a number"),
        ({"tower_units": 8}, "tower_units is 8, an int; give a list such as [128, 64]"),
        ({"activation": 3}, "activation is 3, an int; give text"),
    ],
    ids=str,
)
def test_bad_model_values_name_the_setting_the_value_and_the_remedy(settings, expected):
    with pytest.raises(UsageError) as from_dict:
        LoopCTRConfig.from_dict(settings)
    with pytest.raises(UsageError) as direct:
        LoopCTRConfig(**settings)
    assert message(from_dict) == message(direct) == expected


@pytest.mark.parametrize(
    ("cls", "settings", "expected"),
    [
        (TrainingConfig, {"epochs": 0}, "epochs is 0; give 1 or more"),
        (TrainingConfig, {"learning_rate": 0}, "learning_rate is 0; give more than 0"),
        (TrainingConfig, {"ema_momentum": 1}, "ema_momentum is 1; give less than 1"),
        (
            TrainingConfig,
            {"table_optimizer": "adagrad"},
            "table_optimizer is 'adagrad'; choose 'adamw', 'lazy_adamw' or 'rowwise_adagrad'",
        ),
        (
            TrainingConfig,
            {"table_learning_rate": 0.1},
            "table_learning_rate is 0.1; leave it out, or set table_optimizer to lazy_adamw or",
        ),
        (
            TrainingConfig,
            {"table_weight_decay": 0.1},
            "table_weight_decay is 0.1; leave it out, or set table_optimizer to lazy_adamw or",
        ),
        (ExecutionConfig, {"precision": "float16"}, "precision is 'float16'; choose 'float32' or"),
    ],
    ids=str,
)
def test_bad_values_of_training_and_execution(cls, settings, expected):
    with pytest.raises(UsageError) as error:
        cls.from_dict(settings)
    assert message(error).startswith(expected)


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
    assert message(error).startswith("training setting 'lerning_rate' does not exist; did you mean")
    with pytest.raises(UsageError) as error:
        ExecutionConfig.from_dict({"zzz": 2})
    assert "execution setting 'zzz' does not exist; known are precision, xla, " in message(error)


def test_configs_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        LoopCTRConfig().dim = 3


# A whole run.


def test_round_trips_through_json_and_yaml_keep_every_setting(tmp_path):
    config = RunConfig(
        LoopCTRConfig(dim=32, heads=8, tower_units=(9, 7), sink=False, supervision="last"),
        TrainingConfig(learning_rate=3e-4, strategy="mirrored"),
        ExecutionConfig(recompute=True),
        "stackctr",
    )
    config.save(tmp_path / "config.yaml")
    for again in (
        RunConfig.load(tmp_path / "config.yaml"),
        RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))),
    ):
        assert (again.model, again.training) == (config.model, config.training)
        assert (again.execution, again.name) == (config.execution, "stackctr")


def test_no_file_means_defaults(tmp_path):
    assert RunConfig.load().to_dict() == RunConfig().to_dict()
    (tmp_path / "empty.yaml").write_text("")
    assert RunConfig.load(tmp_path / "empty.yaml").to_dict() == RunConfig().to_dict()
    assert RunConfig().training.monitor is None


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
            "execution.xla=true",
            "precision=mixed_bfloat16",
            " loops = 2 ",
        ],
    )
    assert config.model == LoopCTRConfig(
        dim=32, heads=2, tower_units=(7, 5), embedding_dim=None, sink=False, loops=2
    )
    assert config.training == TrainingConfig(
        epochs=4, learning_rate=0.001, monitor="val_loop_1_auc"
    )
    assert config.execution == ExecutionConfig(xla=True, precision="mixed_bfloat16")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("dim", "--set 'dim' is not a setting; write name=value, e.g. dim=32"),
        ("dimm=8", "--set 'dimm' is not a setting; did you mean 'dim'?"),
        ("modl.dim=8", "--set 'modl.dim' names an unknown section; use model, execution, training"),
        ("training.dim=8", "training setting 'dim' does not exist"),
        ("model.hheads=8", "model setting 'hheads' does not exist; did you mean 'heads'?"),
        ("dim=eight", "dim is 'eight', a str; give a whole number"),
        ("tower_units=[8", "--set tower_units='[8' is not a YAML value; quote it"),
    ],
)
def test_bad_overrides_name_the_pair_and_the_remedy(pair, expected):
    with pytest.raises(UsageError) as error:
        RunConfig.load(None, [pair])
    assert message(error).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- dim", "is ['dim']; write `name: value` lines"),
        ("modle: {dim: 8}", "has an unknown section 'modle'; use model, execution, training"),
        ("model: 8", "section 'model' of configuration"),
        ("model: {dim: 8", "is not YAML"),
        ("version: x", "has version 'x'; this release reads 1 and 2"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_bad_files_are_named(tmp_path, text, expected):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as error:
        RunConfig.load(path)
    assert expected in message(error)
    assert str(path) in message(error)


# The registry of models.


@pytest.mark.parametrize("pairs", [["model.name=hstu", "layers=1"], ["layers=1", "name=hstu"]])
def test_the_models_name_decides_which_settings_there_are(pairs):
    config = RunConfig.load(None, pairs)
    assert (config.name, type(config.model)) == ("hstu", config_class("hstu"))
    assert config.model.layers == 1
    assert type(config.build_model(compact_schema())) is model_class("hstu")
    with pytest.raises(UsageError, match=r"^--set 'num_queries' is not a setting"):
        RunConfig.load(None, [*pairs, "num_queries=3"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hstuu", "model.name is 'hstuu', which is not a model; did you mean 'hstu'?"),
        ("null", "model.name is None, which is not a model; known are loopctr, stackctr, "),
        ("[hstu]", "model.name is ['hstu'], which is not a model; "),
    ],
)
def test_unknown_models_are_refused(tmp_path, name, expected):
    (tmp_path / "config.yaml").write_text(f"model: {{name: {name}}}")
    for arguments in ((None, [f"name={name}"]), (tmp_path / "config.yaml",)):
        with pytest.raises(UsageError) as error:
            RunConfig.load(*arguments)
        assert message(error).startswith(expected)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("hstu", {"recompute": True}), ("dlrm", {"expert_dispatch": "dense"})],
)
def test_execution_settings_that_a_model_does_not_use_are_refused(name, setting):
    config = RunConfig(execution=ExecutionConfig(**setting), name=name)
    with pytest.raises(UsageError) as error:
        config.build_model(compact_schema())
    ((key, value),) = setting.items()
    cls = model_class(name).__name__
    assert message(error) == f"{key} is {value!r}, which {cls} does not use; leave it out"


def test_a_config_of_another_model_is_refused():
    with pytest.raises(UsageError, match="config is a LoopCTRConfig; DLRM takes a DLRMConfig"):
        RunConfig(LoopCTRConfig(), name="dlrm").build_model(compact_schema())


def test_the_json_schema_describes_every_section_and_model():
    schema = json.loads(json.dumps(RunConfig.json_schema()))
    assert "$ref" not in json.dumps(schema)  # a reference would point into the wrong document
    assert schema["additionalProperties"] is False
    kinds = {
        kind["properties"]["name"]["const"]: kind for kind in schema["properties"]["model"]["anyOf"]
    }
    assert set(kinds) == set(MODELS)
    for name, kind in kinds.items():
        saved = RunConfig(name=name).to_dict()
        assert set(saved) == set(schema["properties"])
        assert saved["version"] == schema["properties"]["version"]["const"]
        assert set(kind["properties"]) == set(saved["model"])
        # A file without a name means loopctr.
        assert kind.get("required", []) == ([] if name == "loopctr" else ["name"])
        for section in (kind, schema["properties"]["execution"], schema["properties"]["training"]):
            assert section["additionalProperties"] is False
            described = {k: v for k, v in section["properties"].items() if k != "name"}
            assert all(value["description"] for value in described.values())
    for section, cls in (("execution", ExecutionConfig), ("training", TrainingConfig)):
        assert set(schema["properties"][section]["properties"]) == set(cls.model_fields)
