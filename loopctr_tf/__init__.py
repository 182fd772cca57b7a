"""LoopCTR for TensorFlow: train with L loops of one shared Transformer block, serve with none.

Public names are loaded on first use, so that ``loopctr --help`` does not wait for TensorFlow::

    import loopctr_tf as lc

    schema = lc.Schema.load("prepared")
    model = lc.LoopCTR(schema, lc.LoopCTRConfig(dim=32, loops=3))
"""

import importlib
import os
import sys

from loopctr_tf.version import __version__

_REMEDY = (
    "loopctr_tf needs Keras 2 (tf_keras), because tensorflow-recommenders does, but {found}; "
    "set the environment variable TF_USE_LEGACY_KERAS=1, or import loopctr_tf before anything "
    "that touches tf.keras"
)


def _require_legacy_keras() -> None:
    """Make ``tf.keras`` mean tf_keras, or raise ImportError with the remedy."""
    chosen = os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if chosen.lower() not in ("1", "true"):
        raise ImportError(_REMEDY.format(found=f"TF_USE_LEGACY_KERAS={chosen!r} is set"))
    tensorflow = sys.modules.get("tensorflow")
    # A partially imported tensorflow has no keras yet, and will read the variable set above.
    keras = getattr(tensorflow, "keras", None)
    if keras is not None and "tf_keras" not in getattr(keras.Model, "__module__", "tf_keras"):
        raise ImportError(_REMEDY.format(found="tf.keras is already Keras 3"))


_require_legacy_keras()
# TensorFlow leaves oneDNN off on processors without AVX-512, where it makes training half as fast again.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_EXPORTS = {
    "Schema": "loopctr_tf.features.schema",
    "Feature": "loopctr_tf.features.schema",
    "Categorical": "loopctr_tf.features.columns",
    "MultiCategorical": "loopctr_tf.features.columns",
    "Numeric": "loopctr_tf.features.columns",
    "Sequence": "loopctr_tf.features.schema",
    "Table": "loopctr_tf.features.schema",
    "LoopCTRConfig": "loopctr_tf.models.loopctr.settings",
    "UsageError": "loopctr_tf.errors",
    "LoopCTR": "loopctr_tf.models",
    "StackCTR": "loopctr_tf.models",
    "read_dataset": "loopctr_tf.features.dataset",
    "export_saved_model": "loopctr_tf.export.export",
    "ScoringClient": "loopctr_tf.scoring",
}
_MODULES = {
    "layers": "loopctr_tf.layers",
    "metrics": "loopctr_tf.evaluation",
    "optimizers": "loopctr_tf.training.optimizers",
    "supervision": "loopctr_tf.models.objective",
    "training": "loopctr_tf.training.train",
}

__all__ = [*_EXPORTS, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'loopctr_tf' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
