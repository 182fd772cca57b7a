"""What is compared: sections, pairs, presets, rows, and what is refused before anything is trained."""

import pytest

from loopctr_tf.compare.protocol import ABLATIONS, EXPERTS, PRESETS, Comparison, Protocol
from loopctr_tf.errors import UsageError
from loopctr_tf.models import MODELS


def test_every_system_gets_the_same_training():
    comparison = Comparison()
    choice = {**comparison.default_choice(), "dim": 16, "dropout": 0.1, "table_weight_decay": 0.1}
    configs = {row.name: comparison.config(row, choice, seed=4) for row in comparison.rows()}
    assert set(configs) == set(MODELS)
    assert len({str(config.training.to_dict()) for config in configs.values()}) == 1
    for name, config in configs.items():
        assert (config.name, config.model.dim, config.model.dropout) == (name, 16, 0.1)
        assert config.training.table_weight_decay == 0.1
        assert (config.training.learning_rate, config.training.table_learning_rate) == (0.001, 0.01)
        assert config.training.seed == 4


def test_ablations_differ_from_loopctr_in_what_they_are_named_after():
    comparison = Comparison(["loopctr", "dlrm"], ablations=True, sensitivity=True)
    rows = comparison.rows()
    assert [row.name for row in rows[:2]] == ["loopctr", "dlrm"]
    assert len(rows) == 2 + len(ABLATIONS) + len(EXPERTS)
    full = comparison.config(rows[0], comparison.default_choice()).model.to_dict()
    for row in rows[2:]:
        changed = comparison.config(row, comparison.default_choice()).model.to_dict()
        different = {name: changed[name] for name in full if changed[name] != full[name]}
        assert row.searched_as == "loopctr"
        assert different
        assert different.items() <= row.model.items()


def test_a_file_and_pairs_on_the_command_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "protocol: {seeds: 2}\ntraining: {epochs: 3}\nmodels: {loopctr: {loops: 2, heads: 2}}\n"
    )
    found = Comparison.load(
        path, ["loopctr"], ["loopctr.loops=1", "training.batch_size=64"], trials=5
    )
    assert found.protocol == Protocol(seeds=2, trials=5)
    assert (found.training.epochs, found.training.batch_size) == (3, 64)
    assert found.training.table_optimizer == "lazy_adamw"
    assert found.models == {"loopctr": {"loops": 1, "heads": 2}}
    assert found.to_dict()["models"] == found.models


def test_tables_are_not_searched_where_one_rule_trains_everything():
    found = Comparison.load(None, ["dlrm"], ["training.table_optimizer=adamw"])
    assert set(found.default_choice()) == {"dim", "dropout", "learning_rate"}
    config = found.config(found.rows()[0], found.default_choice())
    assert config.training.table_learning_rate is None


@pytest.mark.parametrize("name", ["amazon", "taobao", "kuaivideo"])
def test_presets_hold_the_papers_settings(name):
    found = Comparison.load(f"paper/{name}", ["loopctr", "stackctr"])
    config = found.config(found.rows()[0], found.default_choice())
    assert (config.training.learning_rate, config.training.batch_size) == (1e-3, 2048)
    assert (config.model.dim, config.model.streams, config.model.loops) == (64, 2, 3)
    assert config.model.ffn_dim == 12 * config.model.dim
    assert len(list(PRESETS.glob("*/*.yaml"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["dlmr"]}, "model 'dlmr' does not exist; did you mean 'dlrm'"),
        ({"names": ["dlrm"], "ablations": True}, "ablations are of LoopCTR"),
        ({"overrides": ["epochs=3"]}, "write protocol.NAME, training.NAME or MODEL.NAME"),
        ({"overrides": ["training.epoch=3"]}, "training setting 'epoch' does not exist"),
        ({"overrides": ["hstu.layer=3"]}, "model setting 'layer' does not exist"),
        ({"names": ["dlrm"], "overrides": ["din.tower_units=[4]"]}, "din are given, which is not"),
        ({"overrides": ["din.dim=8"]}, "din.dim is 8, which is searched alike for all"),
        ({"overrides": ["protocol.dims=[32, 30]"]}, "heads is 4; give a divisor of dim"),
        ({"overrides": ["protocol.learning_rates=[0.1, 0.01]"]}, "give the smaller one first"),
        ({"overrides": ["protocol.learning_rates=[0, 0.01]"]}, "give more than 0"),
        ({"path": "paper/amazn"}, "neither a file nor a preset; did you mean 'paper/amazon'"),
        ({"seeds": 0}, "seeds is 0; give 1 or more"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(arguments, message):
    with pytest.raises(UsageError, match=message):
        Comparison.load(arguments.pop("path", None), **arguments)
