"""The settings of a run: ``config.yaml`` with the sections ``model``, ``execution`` and ``training``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from loopctr_tf import models
from loopctr_tf.errors import UsageError
from loopctr_tf.models.settings import ExecutionConfig, ModelConfig, Positive
from loopctr_tf.settings import Number, Settings, mapping, parse_pair, read_yaml, suggestion

VERSION = 2
"""Of ``config.yaml``. 1 had no version, called the model ``training.architecture`` and had the way of
execution among the model's settings."""


class TrainingConfig(Settings):
    """How a model is trained."""

    what: ClassVar[str] = "training setting"

    epochs: Positive = 10
    """Passes over the training split at most."""
    batch_size: Positive = 512
    """Rows a step, over all replicas."""
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-3
    """Constant rate of AdamW."""
    weight_decay: Annotated[Number, Field(ge=0)] = 1e-2
    """Decoupled decay of matrices (never of tables, biases or norm gains)."""
    table_optimizer: Literal["adamw", "lazy_adamw", "rowwise_adagrad"] = "adamw"
    """Rule of the embedding tables: adamw as for everything else, or one whose work does not depend on
    the number of rows: lazy_adamw, or rowwise_adagrad with one number of state a row."""
    table_learning_rate: Annotated[Number, Field(gt=0)] | None = None
    """Constant rate of the tables under the latter two; null means learning_rate."""
    table_weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Decoupled decay of the tables under the latter two."""
    clip_norm: Annotated[Number, Field(ge=0)] = 1.0
    """Limit of the gradients' global norm; 0 clips nothing."""
    ema_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average of weights; 0 means none."""
    patience: Positive = 2
    """Epochs without a better monitor before training stops."""
    monitor: str | None = None
    """Validation figure that picks the best epoch, e.g. val_loop_0_auc; null means the AUC of the served
    head."""
    seed: int = 1
    """Seed of initial weights, dropout and shuffling."""
    shuffle_buffer: Positive = 20_000
    """Rows held for shuffling."""
    strategy: Literal["none", "mirrored"] = "none"
    """none, or mirrored for all local GPUs. Several machines: build and compile the model inside
    MultiWorkerMirroredStrategy().scope() in a script of your own."""

    @model_validator(mode="after")
    def _check_tables(self):
        if self.table_optimizer == "adamw":
            remedy = "leave it out, or set table_optimizer to lazy_adamw or rowwise_adagrad"
            for name, default in (("table_learning_rate", None), ("table_weight_decay", 0)):
                if getattr(self, name) != default:
                    raise UsageError(f"{name} is {getattr(self, name)!r}; {remedy}")
        return self


class RunConfig:
    """A whole run.

    Args:
      model: settings of the model; of the class that belongs to ``name``.
      training: how it is trained.
      execution: how it is executed.
      name: of the model in the registry, ``model.name`` in the file.
    """

    def __init__(
        self,
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        execution: ExecutionConfig | None = None,
        name: str = "loopctr",
    ):
        self.name = name
        self.model = model or models.config_class(name)()
        self.training = training or TrainingConfig()
        self.execution = execution or ExecutionConfig()

    def to_dict(self) -> dict[str, Any]:
        """Version and sections as plain values."""
        return {
            "version": VERSION,
            "model": {"name": self.name, **self.model.to_dict()},
            "execution": self.execution.to_dict(),
            "training": self.training.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The inverse of :meth:`to_dict`; any section and any setting may be absent."""
        sections = {
            name: mapping(values.get(name) or {}, f"section {name!r}") for name in _SECTIONS
        }
        name = sections["model"].pop("name", "loopctr")
        return cls(
            models.config_class(name).from_dict(sections["model"]),
            TrainingConfig.from_dict(sections["training"]),
            ExecutionConfig.from_dict(sections["execution"]),
            name,
        )

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Iterable[str] = ()) -> "RunConfig":
        """Reads ``path`` (YAML; None means defaults), then applies ``section.name=value`` pairs.

        A pair may leave out the section, e.g. ``dim=32``. Files of version 1 are migrated.

        Raises:
          UsageError: for a file that cannot be read, unknown sections and keys, and bad values.
        """
        values = {} if path is None else migrated(_read(path))
        pairs = [parse_pair(pair) for pair in overrides]
        # The model decides which settings there are, so its name comes first.
        for place, value in sorted(pairs, key=lambda pair: pair[0] not in ("model.name", "name")):
            section, key = _locate(place, (values.get("model") or {}).get("name", "loopctr"))
            values[section] = {**(values.get(section) or {}), key: value}
        return cls.from_dict(values)

    def save(self, path: str | Path) -> None:
        """Writes all settings as YAML."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False))

    def build_model(self, schema):
        """A fresh model of these settings."""
        return models.model_class(self.name)(schema, self.model, self.execution)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema of ``config.yaml``, for editors."""
        kinds = []
        for name in models.MODELS:
            kind = models.config_class(name).model_json_schema()
            kind["properties"] = {"name": {"const": name}, **kind["properties"]}
            if name != "loopctr":
                kind["required"] = ["name"]
            kinds.append(kind)
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "config.yaml of a run",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "version": {"const": VERSION},
                "model": {"anyOf": kinds},
                "execution": ExecutionConfig.model_json_schema(),
                "training": TrainingConfig.model_json_schema(),
            },
        }


_SECTIONS = ("model", "execution", "training")


def migrated(values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The sections of ``config.yaml`` as the current version has them, from this or an older one."""
    model, execution, training = (dict(values.get(name, {})) for name in _SECTIONS)
    for name in ExecutionConfig.model_fields:
        if name in model:
            execution[name] = model.pop(name)
    if "architecture" in training:
        model["name"] = training.pop("architecture")
    return {"model": model, "execution": execution, "training": training}


def _read(path: str | Path) -> dict[str, Any]:
    values = read_yaml(path, "configuration")
    version = values.get("version", 1)
    if version not in (1, VERSION):
        raise UsageError(
            f"configuration {str(path)!r} has version {version!r}; this release reads 1 and {VERSION}"
        )
    for name in values:
        if name not in ("version", *_SECTIONS):
            raise UsageError(
                f"configuration {str(path)!r} has an unknown section {name!r}; "
                f"use {', '.join(_SECTIONS)}"
            )
    where = f"of configuration {str(path)!r}"
    return {
        name: mapping(values.get(name) or {}, f"section {name!r} {where}") for name in _SECTIONS
    }


def _locate(place: str, model: str) -> tuple[str, str]:
    """The section and key that a dotted or bare setting name means."""
    fields = {
        "model": ("name", *models.config_class(model).model_fields),
        "execution": tuple(ExecutionConfig.model_fields),
        "training": tuple(TrainingConfig.model_fields),
    }
    section, dot, key = place.partition(".")
    if dot:
        if section not in _SECTIONS:
            raise UsageError(
                f"--set {place!r} names an unknown section; use {', '.join(_SECTIONS)}"
            )
        return section, key
    for section, known in fields.items():
        if place in known:
            return section, place
    known = [name for names in fields.values() for name in names]
    raise UsageError(f"--set {place!r} is not a setting{suggestion(place, known)}")
