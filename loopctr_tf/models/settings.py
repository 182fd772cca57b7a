"""What every model's settings have in common: what it is, and how it is executed."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.settings import Settings, Share

Positive = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Positive, ...], Field(strict=False)]
"""Widths of consecutive layers."""


class ModelConfig(Settings):
    """What a model is made of; each model derives its own."""

    what: ClassVar[str] = "model setting"

    dim: Positive = 64
    """Width d of every token."""
    embedding_dim: Positive | None = None
    """Width of an embedding table that names none; null means dim."""
    dropout: Annotated[Share, Field(lt=1)] = 0.0
    """Dropout rate in training."""
    event_recency: bool = False
    """Whether each event is given a learned vector for its age, counted in events: for models that do
    not know the order of a sequence by themselves."""


class AttentionConfig(ModelConfig):
    """Of models whose attention heads share the width."""

    heads: Positive = 4
    """Attention heads H; must divide dim."""

    @model_validator(mode="after")
    def _check_heads(self):
        if self.dim % self.heads:
            raise UsageError(f"heads is {self.heads}; give a divisor of dim ({self.dim})")
        return self


class ExecutionConfig(Settings):
    """How a model is executed. No setting changes the mathematics."""

    what: ClassVar[str] = "execution setting"

    precision: Literal["float32", "mixed_bfloat16"] | None = None
    """Type of matrix products: float32, or mixed_bfloat16, for GPUs above all. Weights, masks, softmax,
    norms, routers, residual coefficients, logits and loss are float32 in both. Null is Keras's global
    policy; a model saves the one that it was made with."""
    xla: bool = False
    """Training compiles everything between embeddings and logits with XLA, for each replica separately.
    Every new shape is compiled again: give fixed lengths and full batches."""
    recompute: bool = False
    """Training recomputes a loop's inner values in the backward pass: less memory, more time."""
    loop_execution: Literal["auto", "while", "unrolled"] = "auto"
    """A tf.while_loop, or the repeated graph; auto takes the faster one for training or serving."""
    expert_dispatch: Literal["auto", "grouped", "batched", "dense"] = "auto"
    """How tokens reach their feed-forward experts: grouped and batched compute k of E experts, dense
    all. Auto is grouped, and batched under XLA, which cannot compile grouped."""

    @model_validator(mode="after")
    def _check_combinations(self):
        if self.loop_execution == "while" and (self.xla or self.recompute):
            raise UsageError(
                "loop_execution is 'while'; xla and recompute need 'unrolled' or 'auto'"
            )
        if self.xla and self.expert_dispatch == "grouped":
            raise UsageError(
                "expert_dispatch is 'grouped'; XLA needs sizes known beforehand: give 'batched', "
                "'dense' or 'auto'"
            )
        return self

    @property
    def dispatch(self) -> str:
        """``expert_dispatch``, "auto" resolved."""
        if self.expert_dispatch != "auto":
            return self.expert_dispatch
        return "batched" if self.xla else "grouped"

    def non_default(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return self.model_dump(exclude_defaults=True)
