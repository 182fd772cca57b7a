"""MTGR: HSTU with a norm for each group of tokens, and a mask for each kind of sequence."""

from typing import Annotated

import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import Timeline
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.hstu import HSTU, HSTUConfig


class MTGRConfig(HSTUConfig):
    """The architecture of MTGR."""

    causal_sequences: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Sequences whose events see none that is more recent, as in the paper's real-time sequence; in the
    others all events see one another, as in its lifelong one. Null means those without compress."""


@keras.utils.register_keras_serializable("loopctr_tf")
class MTGR(HSTU):
    """HSTU's line of tokens with group layer normalisation and dynamic masking (section 4).

        X' = GroupLN(X);  K, Q, V, U = SiLU(X' W)
        V' = M * SiLU(Q K^T + rab) / tokens  V
        X  = (GroupLN(V') * U) W_o + b_o + X

    GroupLN has a gain and a bias of its own for user and context features together, for each sequence,
    and for candidates. The mask M, by who is seen: features and events of full sequences by all tokens;
    a causal event by itself, later causal events and candidates; a candidate by itself alone. So
    features and full sequences do not see causal events. A candidate's token is made of all item and
    cross features.

    Which sequences are causal: a history here ends before its row, so full attention leaks nothing,
    whereas the paper joins a user's candidates of a whole window into one row. By default the sequences
    that the schema compresses, the long ones, are full, and the others causal: the paper's arrangement
    of lifelong and real-time sequences.

    Ours: one linear map where the paper has an MLP, for tokens and in the block; the second norm stands
    before the gate, and there is a relative bias, both as in HSTU. Without the bias, events of a full
    sequence would have no order; it takes differences of positions without sign.

    Parameters beside the tables, for N groups: HSTU's and, in each layer, 4 (N - 1) d. In the last
    layer's second norm only the candidates' row matters.

    Source: Han et al., MTGR: Industrial-Scale Generative Recommendation Framework in Meituan.
    """

    config_class = MTGRConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates HSTU's layers, the norms by group."""
        self._causal = self._checked_causal()
        super().build_layers(widths)

    def _checked_causal(self) -> list[bool]:
        """Whether each sequence is causal."""
        chosen, sequences = self.config.causal_sequences, self.schema.sequences
        if chosen is None:
            return [not sequence.compress for sequence in sequences]
        names = [sequence.name for sequence in sequences]
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            raise UsageError(
                f"causal_sequences names {unknown}; the schema's sequences are {names}"
            )
        return [name in chosen for name in names]

    @property
    def _norm_groups(self) -> int:
        """Request features where there are any, each sequence, candidates."""
        return bool(self.schema.request_features) + len(self.schema.sequences) + 1

    def _line(self, groups: TokenGroups) -> Timeline:
        line = super()._line(groups)
        sizes = [len(groups.request), *(tf.shape(s.mask)[1] for s in groups.sequences)]
        first = 0 if groups.request else -1
        group = [tf.fill([size], first + i) for i, size in enumerate(sizes)]
        causal = [
            tf.fill([size], each) for size, each in zip(sizes, [False, *self._causal], strict=True)
        ]
        # The farthest position, as of a request feature, is one that all tokens see.
        order = tf.where(tf.concat(causal, axis=0), line.position, self._events)
        return line._replace(order=order, group=tf.concat(group, axis=0))
