"""The registry of models: a name in ``config.yaml`` leads to a class, imported when it is needed."""

import importlib

from loopctr_tf.errors import UsageError
from loopctr_tf.settings import suggestion

MODELS = {
    "loopctr": ("loopctr_tf.models.loopctr.model", "LoopCTR"),
    "stackctr": ("loopctr_tf.models.loopctr.model", "StackCTR"),
    "dlrm": ("loopctr_tf.models.dlrm", "DLRM"),
    "din": ("loopctr_tf.models.din", "DIN"),
    "dcnv2": ("loopctr_tf.models.dcnv2", "DCNv2"),
    "wukong": ("loopctr_tf.models.wukong", "Wukong"),
    "dhen": ("loopctr_tf.models.dhen", "DHEN"),
    "autoint": ("loopctr_tf.models.autoint", "AutoInt"),
    "hiformer": ("loopctr_tf.models.hiformer", "Hiformer"),
    "interformer": ("loopctr_tf.models.interformer", "InterFormer"),
    "onetrans": ("loopctr_tf.models.onetrans", "OneTrans"),
    "hstu": ("loopctr_tf.models.hstu", "HSTU"),
    "mtgr": ("loopctr_tf.models.mtgr", "MTGR"),
}
"""Name -> module and class, in the order of the paper's Table 2."""

_CONFIGS = {
    "loopctr": ("loopctr_tf.models.loopctr.settings", "LoopCTRConfig"),
    "stackctr": ("loopctr_tf.models.loopctr.settings", "LoopCTRConfig"),
}
"""Settings that can be read without TensorFlow; the others stand on their model's class."""


def model_class(name: str) -> type:
    """The model of that name; UsageError for an unknown one."""
    if not isinstance(name, str) or name not in MODELS:
        raise UsageError(f"model.name is {name!r}, which is not a model{suggestion(name, MODELS)}")
    module, cls = MODELS[name]
    return getattr(importlib.import_module(module), cls)


def config_class(name: str) -> type:
    """The settings of the model of that name; UsageError for an unknown one."""
    if isinstance(name, str) and name in _CONFIGS:
        module, cls = _CONFIGS[name]
        return getattr(importlib.import_module(module), cls)
    return model_class(name).config_class


def __getattr__(name: str):
    for module, cls in MODELS.values():
        if name == cls:
            return getattr(importlib.import_module(module), cls)
    raise AttributeError(f"module 'loopctr_tf.models' has no attribute {name!r}")
