import pytest
import tf_keras as keras

import loopctr_tf as lc
from tests.training.optimizers.tables import Halving


@pytest.mark.parametrize(
    ("tables", "kind"),
    [
        ("adamw", lc.optimizers.AdamW),
        ("lazy_adamw", lc.optimizers.LazyAdamW),
        ("rowwise_adagrad", lc.optimizers.RowwiseAdagrad),
    ],
)
def test_tables_by_name(tables, kind):
    optimizer = lc.optimizers.adamw(0.5, 0.25, 2.0, 0.75, tables)
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.5
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.25, 2.0)
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.75)


@pytest.mark.parametrize("tables", ["lazy_adamw", "rowwise_adagrad"])
def test_settings_of_tables_survive_serialisation(tables):
    settings = {"table_learning_rate": 0.02, "table_weight_decay": 0.3}
    optimizer = lc.optimizers.adamw(Halving(), tables=tables, **settings)
    config = keras.optimizers.serialize(optimizer)
    with keras.saving.custom_object_scope({"Halving": Halving}):
        copy = keras.optimizers.deserialize(config)
    assert type(copy) is type(optimizer)
    assert {name: copy.get_config()[name] for name in settings} == settings
    assert copy.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"tables": "adagrad"},
            "tables is 'adagrad'; choose 'adamw', 'lazy_adamw', 'rowwise_adagrad'",
        ),
        (
            {"table_weight_decay": 0.1},
            "table_learning_rate is None and table_weight_decay is 0.1, which tables='adamw' has "
            "not; leave them out or choose 'lazy_adamw' or 'rowwise_adagrad'",
        ),
        (
            {"tables": "lazy_adamw", "table_learning_rate": 0},
            "table_learning_rate is 0; give more than 0, or None for learning_rate",
        ),
        (
            {"tables": "lazy_adamw", "table_weight_decay": -0.1},
            "table_weight_decay is -0.1; give 0 or more",
        ),
        (
            {"tables": "rowwise_adagrad", "learning_rate": 0.5, "table_weight_decay": 2.0},
            "table_weight_decay is 2.0 at a rate of 0.5; give less: their product must stay below 1",
        ),
    ],
)
def test_an_error_names_the_remedy(settings, expected):
    with pytest.raises(lc.UsageError) as error:
        lc.optimizers.adamw(**settings)
    assert str(error.value) == expected


def test_amsgrad_of_rows_is_refused():
    with pytest.raises(lc.UsageError, match="amsgrad is True"):
        lc.optimizers.LazyAdamW(amsgrad=True)
