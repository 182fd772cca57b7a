"""Model and training settings: frozen dataclasses, read from YAML and from ``name=value`` pairs."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from loopctr_tf.errors import UsageError


@dataclass(frozen=True)
class LoopCTRConfig:
    """What a LoopCTR (or StackCTR) is made of. Section numbers are the paper's.

    Attributes:
      dim: width d of every token.
      heads: attention heads H; must divide ``dim``.
      ffn_dim: inner width d_ff of one feed-forward expert.
      experts: experts E of every mixture (3.4).
      active_experts: experts k that a token uses; 1 <= k <= E.
      streams: residual streams n (3.3); 1 means plain pre-norm residuals without HCR.
      loops: loops L in training; the supervised depths are 0..L (3.5).
      max_loops: most loops that ``loops=`` may ask for at call time (extrapolation, Table 3).
      num_queries: learnable queries that compress a long sequence.
      embedding_dim: width of an embedding table that names none; None means ``dim``.
      tower_units: hidden widths of the tower.
      activation: activation of experts and tower, a Keras name (ours: the paper names none).
      dropout: rate on attention and feed-forward outputs and on tower layers, in training.
      balance_weight: lambda of eq. 14.
      supervision: "all" averages the loss over all depths (eq. 10); "last" is the ablation.
      group_projection: one projection a group; False is one shared projection, the ablation.
      equal_experts: experts start as copies of one draw (ours; see the layers' docstrings).
      recency_embedding: learned embedding of a sequence token's age, zeros at init (ours).
      sink: one learned null logit a head in attention over sequences (ours).
      global_norm: RMSNorm on each global before the tower (ours).
      history_mean: mean of each sequence's projected tokens as a further tower input (ours).
      loop_execution: "while" is a tf.while_loop, "unrolled" repeats the graph, "auto" takes
        the faster one on this platform. All give the same numbers.
      expert_dispatch: how tokens come to their feed-forward experts, with the same numbers: "grouped"
        and "batched" compute k of E experts, "dense" all. "auto" is "grouped", and "batched" under
        XLA, which cannot compile the former. See :mod:`loopctr_tf.layers.dispatch`.
      recompute: training computes a loop's inner values again in its backward pass and does not keep
        them: less memory, more time.
      xla: training compiles all between the embeddings and the logits with XLA, for each replica
        apart. Every new shape is compiled anew: give fixed lengths and full batches.
      precision: "float32", or "mixed_bfloat16": products of matrices take and give bfloat16, for GPUs
        above all. Weights, masks, softmax, norms, routers, residual coefficients, logits and loss are
        float32 in both. None is Keras's global policy, which is float32 unless somebody set another; a
        model keeps, and saves, the one that it was made with.
    """

    dim: int = 64
    heads: int = 4
    ffn_dim: int = 256
    experts: int = 4
    active_experts: int = 2
    streams: int = 2
    loops: int = 3
    max_loops: int = 8
    num_queries: int = 16
    embedding_dim: int | None = None
    tower_units: tuple[int, ...] = (128, 64)
    activation: str = "gelu"
    dropout: float = 0.0
    balance_weight: float = 0.01
    supervision: Literal["all", "last"] = "all"
    group_projection: bool = True
    equal_experts: bool = True
    recency_embedding: bool = True
    sink: bool = True
    global_norm: bool = True
    history_mean: bool = False
    loop_execution: Literal["auto", "while", "unrolled"] = "auto"
    expert_dispatch: Literal["auto", "grouped", "batched", "dense"] = "auto"
    recompute: bool = False
    xla: bool = False
    precision: Literal["float32", "mixed_bfloat16"] | None = None

    def __post_init__(self):
        _check_types(self)
        for name in (
            "dim",
            "heads",
            "ffn_dim",
            "experts",
            "active_experts",
            "streams",
            "num_queries",
        ):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "give 1 or more")
        _require(self.loops >= 0, "loops", self.loops, "give 0 or more")
        _require(
            self.max_loops >= self.loops,
            "max_loops",
            self.max_loops,
            f"give at least loops ({self.loops})",
        )
        _require(
            self.dim % self.heads == 0, "heads", self.heads, f"give a divisor of dim ({self.dim})"
        )
        _require(
            self.active_experts <= self.experts,
            "active_experts",
            self.active_experts,
            f"give at most experts ({self.experts})",
        )
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "give a rate in [0, 1)")
        _require(self.balance_weight >= 0, "balance_weight", self.balance_weight, "give 0 or more")
        _require(
            all(units >= 1 for units in self.tower_units),
            "tower_units",
            self.tower_units,
            "give positive widths",
        )
        _require(
            self.embedding_dim is None or self.embedding_dim >= 1,
            "embedding_dim",
            self.embedding_dim,
            "give 1 or more, or null for dim",
        )
        _require(
            not (self.loop_execution == "while" and (self.xla or self.recompute)),
            "loop_execution",
            self.loop_execution,
            "xla and recompute need 'unrolled' or 'auto'",
        )
        _require(
            not (self.xla and self.expert_dispatch == "grouped"),
            "expert_dispatch",
            self.expert_dispatch,
            "XLA needs sizes known beforehand: give 'batched', 'dense' or 'auto'",
        )

    @property
    def dispatch(self) -> str:
        """``expert_dispatch``, "auto" resolved."""
        if self.expert_dispatch != "auto":
            return self.expert_dispatch
        return "batched" if self.xla else "grouped"

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON or YAML."""
        return {**dataclasses.asdict(self), "tower_units": list(self.tower_units)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LoopCTRConfig":
        """The inverse of :meth:`to_dict`; unknown keys and wrong types raise UsageError."""
        return _build(cls, values, "model")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
      architecture: "loopctr" or "stackctr" (L distinct Loop Blocks instead of one).
      epochs: passes over the training split at most.
      batch_size: rows a step, over all replicas.
      learning_rate: constant rate of AdamW.
      weight_decay: decoupled decay of matrices (never of tables, biases or norm gains).
      table_optimizer: rule of the embedding tables: "adamw" as for all else, or one whose work does not
        depend on the number of rows: "lazy_adamw", or "rowwise_adagrad" with one figure of state a row.
      table_learning_rate: constant rate of the tables under the latter two; None: ``learning_rate``.
      table_weight_decay: decoupled decay of the tables under the latter two.
      clip_norm: limit of the gradients' global norm; 0 clips nothing.
      ema_momentum: exponential moving average of weights; 0 keeps none.
      patience: epochs without a better ``monitor`` before training stops.
      monitor: validation figure that picks the best epoch, e.g. ``val_loop_0_auc``.
      seed: seed of initial weights, dropout and shuffling.
      shuffle_buffer: rows held for shuffling.
      strategy: "none", or "mirrored" for all local GPUs. Several machines: build and compile the model
        inside ``MultiWorkerMirroredStrategy().scope()`` in a script of your own.
    """

    architecture: Literal["loopctr", "stackctr"] = "loopctr"
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    table_optimizer: Literal["adamw", "lazy_adamw", "rowwise_adagrad"] = "adamw"
    table_learning_rate: float | None = None
    table_weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_momentum: float = 0.0
    patience: int = 2
    monitor: str = "val_loop_0_auc"
    seed: int = 1
    shuffle_buffer: int = 20_000
    strategy: Literal["none", "mirrored"] = "none"

    def __post_init__(self):
        _check_types(self)
        for name in ("epochs", "batch_size", "patience", "shuffle_buffer"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "give 1 or more")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "give more than 0")
        for name in ("weight_decay", "table_weight_decay", "clip_norm"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "give 0 or more")
        rate = self.table_learning_rate
        positive = "give more than 0, or null for learning_rate"
        _require(rate is None or rate > 0, "table_learning_rate", rate, positive)
        if self.table_optimizer == "adamw":
            remedy = "leave it out, or set table_optimizer to lazy_adamw or rowwise_adagrad"
            _require(rate is None, "table_learning_rate", rate, remedy)
            decay = self.table_weight_decay
            _require(decay == 0, "table_weight_decay", decay, remedy)
        _require(
            0 <= self.ema_momentum < 1, "ema_momentum", self.ema_momentum, "give a value in [0, 1)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON or YAML."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """The inverse of :meth:`to_dict`; unknown keys and wrong types raise UsageError."""
        return _build(cls, values, "training")


@dataclass(frozen=True)
class RunConfig:
    """A whole run: the two sections of ``config.yaml``."""

    model: LoopCTRConfig = field(default_factory=LoopCTRConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Both sections as plain values."""
        return {"model": self.model.to_dict(), "training": self.training.to_dict()}

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Iterable[str] = ()) -> "RunConfig":
        """Reads ``path`` (YAML; None means defaults), then applies ``section.name=value`` pairs.

        A pair may leave the section out where the name is in only one section, e.g. ``dim=32``.
        Raises UsageError for a file that is missing or no mapping, and for unknown keys.
        """
        sections = {name: dict(values) for name, values in _read_yaml(path).items()}
        for pair in overrides:
            name, separator, text = pair.partition("=")
            if not separator:
                raise UsageError(f"--set {pair!r} is not a setting; write name=value, e.g. dim=32")
            section, key = _locate(name.strip())
            sections.setdefault(section, {})[key] = _parse_value(text, name)
        return cls(
            model=LoopCTRConfig.from_dict(sections.get("model", {})),
            training=TrainingConfig.from_dict(sections.get("training", {})),
        )

    def save(self, path: str | Path) -> None:
        """Writes the settings, all of them, as YAML."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False))


_SECTIONS = {"model": LoopCTRConfig, "training": TrainingConfig}


def _require(condition: bool, name: str, value: Any, remedy: str) -> None:
    if not condition:
        raise UsageError(f"{name} is {value!r}; {remedy}")


def _parse_value(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {name}={text!r} is not a YAML value; quote it") from error


def _read_yaml(path: str | Path | None) -> dict[str, dict]:
    if path is None:
        return {}
    try:
        loaded = yaml.safe_load(Path(path).read_text()) or {}
    except OSError as error:
        raise UsageError(f"configuration {str(path)!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"configuration {str(path)!r} is not YAML: {problem}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"configuration {str(path)!r} holds no mapping; write `model:` and so on")
    for name, values in loaded.items():
        if name not in _SECTIONS:
            raise UsageError(
                f"configuration {str(path)!r} has an unknown section {name!r}; "
                f"use {' or '.join(_SECTIONS)}"
            )
        if not isinstance(values, dict):
            raise UsageError(
                f"section {name!r} of configuration {str(path)!r} is {values!r}; "
                "write its settings as `name: value` lines below it"
            )
    return loaded


def _locate(name: str) -> tuple[str, str]:
    """The section and key that a dotted or bare setting name means."""
    section, dot, key = name.partition(".")
    if dot:
        if section not in _SECTIONS:
            raise UsageError(
                f"--set {name!r} names an unknown section; use {' or '.join(_SECTIONS)}"
            )
        return section, key
    for candidate, cls in _SECTIONS.items():
        if name in cls.__dataclass_fields__:
            return candidate, name
    known = [key for cls in _SECTIONS.values() for key in cls.__dataclass_fields__]
    raise UsageError(f"--set {name!r} is no setting{_suggestion(name, known)}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _build(cls: type, values: Mapping[str, Any], section: str) -> Any:
    for name in values:
        if name not in cls.__dataclass_fields__:
            raise UsageError(
                f"{section} setting {name!r} does not exist"
                + _suggestion(name, cls.__dataclass_fields__)
            )
    return cls(**values)


def _check_types(config: Any) -> None:
    """Turns every field into the type of its annotation, or raises UsageError."""
    for name, hint in typing.get_type_hints(type(config)).items():
        object.__setattr__(config, name, _convert(getattr(config, name), hint, name))


def _convert(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the annotated type, or UsageError; YAML gives ints where floats are meant."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), name)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{name} is {value!r}; choose {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{name} is {value!r}; give a list such as [128, 64]")
        return tuple(_convert(item, args[0], name) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text.
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is hint:
        return value
    raise UsageError(f"{name} is {value!r}, a {type(value).__name__}; give a {hint.__name__}")
