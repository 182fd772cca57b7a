"""What is compared: the rows of the table, the settings they share, and the search they are given."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from loopctr_tf import models
from loopctr_tf.errors import UsageError
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import Positive
from loopctr_tf.settings import Number, Settings, Share, mapping, parse_pair, read_yaml, suggestion
from loopctr_tf.training.settings import RunConfig, TrainingConfig

PRESETS = Path(__file__).with_name("presets")
SECTIONS = ("protocol", "training", "models")


Rate = Annotated[Number, Field(gt=0)]
Range = Annotated[tuple[Rate, ...], Field(strict=False, min_length=2, max_length=2)]


class Protocol(Settings):
    """How systems are compared: the same for each of them."""

    what: ClassVar[str] = "protocol setting"

    seeds: Positive = 3
    """Final trainings of each system, with seeds 1, 2, ..."""
    trials: Positive = 8
    """Settings tried for each system; the first trial takes the defaults."""
    select: Literal["auc", "gauc", "ne"] = "auc"
    """Exact validation figure of the served head by which a system's trial is chosen."""
    dims: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (32,)
    """Widths to choose from; the first is the default."""
    learning_rates: Range = (3e-4, 3e-3)
    """Least and largest learning rate, searched on a logarithmic scale."""
    table_learning_rates: Range = (3e-3, 3e-2)
    """The same for the embedding tables: rare ids need larger steps than what all rows share."""
    dropouts: Annotated[
        tuple[Annotated[Share, Field(lt=1)], ...], Field(strict=False, min_length=1)
    ] = (0.0, 0.1, 0.2, 0.3)
    """Dropout rates to choose from."""
    table_decays: Annotated[tuple[Number, ...], Field(strict=False, min_length=1)] = (
        0.0,
        0.03,
        0.1,
        0.3,
    )
    """Decoupled decays of the embedding tables to choose from."""
    search_seed: int = 0
    """Seed of the search, and of the trainings in it."""

    @model_validator(mode="after")
    def _check_ranges(self):
        for name in ("learning_rates", "table_learning_rates"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"{name} are {[low, high]}; give the smaller one first")
        return self


class Row(NamedTuple):
    """One trained system of the table.

    Attributes:
      name: of its folder and in the table.
      model: settings that differ from those of its system, with ``name``.
      searched_as: the row whose search gives the other settings; its own name, or the full model's.
      kind: "system", "ablation" or "sensitivity".
      monitor: validation figure that picks its epoch; None means the served head's AUC.
    """

    name: str
    model: dict[str, Any]
    searched_as: str
    kind: str = "system"
    monitor: str | None = None


ABLATIONS: dict[str, dict[str, Any]] = {
    "without HCR": {"streams": 1},
    "without MoE": {"experts": 1, "active_experts": 1},
    "without process supervision": {"supervision": "last"},
    "without group projection": {"group_projection": False},
    "independent experts": {"equal_experts": False},
    "without recency": {"recency_embedding": False},
    "without sink": {"sink": False},
    "outputs not from zero": {"zero_outputs": False},
    "with global norm": {"global_norm": True},
}
"""Figure 3's rows, then one for each choice of ours: what a LoopCTR is without one of its parts."""

EXPERTS = ((1, 4), (3, 4), (4, 4), (2, 2), (2, 3), (2, 5))
"""Table 4's active and total experts, beside the default (2, 4)."""


TABLES = {"table_optimizer": "lazy_adamw", "table_learning_rate": 0.01}
"""How tables are trained unless a comparison says otherwise."""


class Comparison:
    """Everything that decides the figures of one comparison.

    Args:
      names: of registered models; in the order of the registry.
      protocol: shared by all.
      training: settings that are not searched.
      models: settings of single systems, by name.
      ablations: whether LoopCTR's ablations are trained.
      sensitivity: whether LoopCTR is trained with other numbers of experts.

    Raises:
      UsageError: for unknown models and settings.
    """

    def __init__(
        self,
        names: Iterable[str] = ("all",),
        protocol: Protocol | None = None,
        training: TrainingConfig | None = None,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        ablations: bool = False,
        sensitivity: bool = False,
    ):
        self.names = _known(names)
        self.protocol = protocol or Protocol()
        self.training = training or TrainingConfig.from_dict(TABLES)
        self.models = {name: dict(settings) for name, settings in (models or {}).items()}
        self.ablations, self.sensitivity = ablations, sensitivity
        if (ablations or sensitivity) and "loopctr" not in self.names:
            raise UsageError(
                f"ablations are of LoopCTR, which is not among {', '.join(self.names)}"
            )
        _known(self.models)
        for name in self.models:
            if name not in self.names:
                raise UsageError(
                    f"settings of {name} are given, which is not compared; add it to models"
                )
            for searched in ("dim", "dropout"):
                if searched in self.models[name]:
                    raise UsageError(
                        f"{name}.{searched} is {self.models[name][searched]!r}, which is searched "
                        f"alike for all; set protocol.{searched}s"
                    )
        # A bad setting is found before anything is trained.
        for row in self.rows():
            for dim in self.protocol.dims:
                self.config(row, {**self.default_choice(), "dim": dim})

    @classmethod
    def load(
        cls,
        path: str | Path | None,
        names: Iterable[str] = ("all",),
        overrides: Iterable[str] = (),
        **settings: Any,
    ) -> "Comparison":
        """From a file with sections protocol, training and models, then ``section.name=value`` pairs.

        A pair names a setting as in the file, e.g. ``training.epochs=3`` or ``loopctr.loops=2``.

        Args:
          path: YAML; a name such as ``paper/amazon`` is one of the presets, None the defaults.
          names: of models.
          overrides: pairs.
          settings: of :class:`Comparison`, and of :class:`Protocol`.
        """
        values = {} if path is None else read_yaml(_located(path), "comparison")
        for name in values:
            if name not in SECTIONS:
                raise UsageError(
                    f"section {name!r} of {str(path)!r} does not exist{suggestion(name, SECTIONS)}"
                )
        protocol, training, of_models = (
            mapping(values.get(s) or {}, f"section {s!r}") for s in SECTIONS
        )
        of_models = {
            name: mapping(given or {}, f"models.{name}") for name, given in of_models.items()
        }
        for place, value in map(parse_pair, overrides):
            section, dot, key = place.partition(".")
            if not dot or section not in ("protocol", "training", *models.MODELS):
                raise UsageError(
                    f"--set {place!r} is not a setting; write protocol.NAME, training.NAME or MODEL.NAME"
                )
            groups = {"protocol": protocol, "training": training}
            (groups[section] if section in groups else of_models.setdefault(section, {}))[key] = (
                value
            )
        if training.get("table_optimizer") != "adamw":
            training = {**TABLES, **training}
        for name in ("seeds", "trials"):
            if (value := settings.pop(name, None)) is not None:
                protocol[name] = value
        return cls(
            names,
            Protocol.from_dict(protocol),
            TrainingConfig.from_dict(training),
            of_models,
            **settings,
        )

    def to_dict(self) -> dict[str, Any]:
        """The sections as plain values."""
        return {
            "protocol": self.protocol.to_dict(),
            "training": self.training.to_dict(),
            "models": {name: self.models.get(name, {}) for name in self.names},
        }

    def rows(self) -> list[Row]:
        """The systems, then the ablations, then the numbers of experts."""
        rows = [Row(name, {"name": name}, name) for name in self.names]
        changes: list[tuple[str, dict[str, Any], str]] = []
        if self.ablations:
            changes += [(name, change, "ablation") for name, change in ABLATIONS.items()]
        if self.sensitivity:
            changes += [
                (
                    f"{active} of {experts} experts",
                    {"experts": experts, "active_experts": active},
                    "sensitivity",
                )
                for active, experts in EXPERTS
            ]
        for name, change, kind in changes:
            # Where the last depth alone is trained, depth 0 has nothing to say.
            last = f"val_loop_{self._loops()}_auc" if "supervision" in change else None
            rows.append(Row(name, {"name": "loopctr", **change}, "loopctr", kind, last))
        return rows

    def _loops(self) -> int:
        return self.models.get("loopctr", {}).get("loops", LoopCTRConfig().loops)

    def default_choice(self) -> dict[str, Any]:
        """What the first trial takes."""
        protocol, training = self.protocol, self.training
        choice = {
            "dim": protocol.dims[0],
            "dropout": protocol.dropouts[0],
            "learning_rate": _within(protocol.learning_rates, training.learning_rate),
        }
        if training.table_optimizer != "adamw":
            rate = training.table_learning_rate or training.learning_rate
            choice["table_learning_rate"] = _within(protocol.table_learning_rates, rate)
            choice["table_weight_decay"] = protocol.table_decays[0]
        return choice

    def config(self, row: Row, choice: Mapping[str, Any], seed: int | None = None) -> RunConfig:
        """The run of ``row`` with the searched settings ``choice``."""
        name = row.model["name"]
        model = {
            "dim": choice["dim"],
            "dropout": choice["dropout"],
            **self.models.get(name, {}),
            **{key: value for key, value in row.model.items() if key != "name"},
        }
        training = {
            **self.training.to_dict(),
            **{key: choice[key] for key in choice if key not in ("dim", "dropout")},
            "seed": self.protocol.search_seed if seed is None else seed,
        }
        if row.monitor is not None:
            training["monitor"] = row.monitor
        return RunConfig.from_dict({"model": {"name": name, **model}, "training": training})


def _within(bounds: Sequence[float], value: float) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _known(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    if names == ("all",):
        return tuple(models.MODELS)
    for name in names:
        if name not in models.MODELS:
            raise UsageError(
                f"model {name!r} does not exist{suggestion(name, [*models.MODELS, 'all'])}"
            )
    return tuple(name for name in models.MODELS if name in names)


def _located(path: str | Path) -> Path:
    preset = PRESETS / f"{path}.yaml"
    if Path(path).exists() or preset.is_file():
        return preset if preset.is_file() else Path(path)
    known = sorted(f"{p.parent.name}/{p.stem}" for p in PRESETS.glob("*/*.yaml"))
    raise UsageError(
        f"comparison {str(path)!r} is neither a file nor a preset{suggestion(str(path), known)}"
    )
