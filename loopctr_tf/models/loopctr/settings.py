"""What LoopCTR and StackCTR are made of."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths
from loopctr_tf.settings import Number


class LoopCTRConfig(AttentionConfig):
    """The architecture of a LoopCTR or StackCTR. Section numbers are the paper's."""

    ffn_dim: Positive = 256
    """Inner width d_ff of one feed-forward expert."""
    experts: Positive = 4
    """Experts E of every mixture (3.4)."""
    active_experts: Positive = 2
    """Experts k that a token uses; 1 <= k <= E."""
    streams: Positive = 2
    """Residual streams n (3.3); 1 means plain pre-norm residuals without HCR."""
    loops: Annotated[int, Field(ge=0)] = 3
    """Loops L in training; the supervised depths are 0..L (3.5)."""
    max_loops: Annotated[int, Field(ge=0)] = 8
    """Most loops that can be requested at call time (extrapolation, Table 3)."""
    num_queries: Positive = 16
    """Learnable queries that compress a long sequence."""
    tower_units: Widths = (128, 64)
    """Hidden widths of the tower."""
    activation: str = "gelu"
    """Activation of experts and tower, a Keras name (ours: the paper names none)."""
    balance_weight: Annotated[Number, Field(ge=0)] = 0.01
    """Weight lambda of the load-balancing loss (eq. 14)."""
    supervision: Literal["all", "last"] = "all"
    """The loss is the mean over all depths (eq. 10), or that of the last depth alone, the ablation."""
    group_projection: bool = True
    """One projection for each group; false is one shared projection, the ablation."""
    equal_experts: bool = True
    """Experts start as copies of one draw (ours)."""
    zero_outputs: bool = True
    """Attention and feed-forward networks start with an output of zero: a token is its projection until
    they have learned something (ours). Otherwise the norms in front of them make noise of full size out
    of the small embeddings of rare ids."""
    recency_embedding: bool = True
    """Learned embedding of a sequence token's age, zeros at initialisation (ours)."""
    sink: bool = True
    """One learned null logit for each head in attention over sequences (ours)."""
    global_norm: bool = False
    """RMSNorm on each global token before the tower, which takes from it the size of numbers and of rare
    ids' embeddings (ours; it helped where outputs did not start at zero)."""
    history_mean: bool = False
    """Mean of each sequence's projected tokens as an additional tower input (ours)."""

    @model_validator(mode="after")
    def _check_combinations(self):
        if self.max_loops < self.loops:
            raise UsageError(f"max_loops is {self.max_loops}; give at least loops ({self.loops})")
        if self.active_experts > self.experts:
            raise UsageError(
                f"active_experts is {self.active_experts}; give at most experts ({self.experts})"
            )
        return self
