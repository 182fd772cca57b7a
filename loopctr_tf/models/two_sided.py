"""One user against N candidates: the protocol that every model follows, and its default.

A request is split in two: what :meth:`TwoSided.encode_user` computes from the user's side, and
:meth:`TwoSided.rank`, which adds the candidates. The default keeps the embedded user and repeats it over
the candidates, a chunk at a time; models whose mask lets the user's side be computed once override all
three methods.
"""

import tensorflow as tf

from loopctr_tf.models.chunks import WEIGHTS_AT_A_TIME, rank_in_chunks
from loopctr_tf.models.encoder import SequenceTokens, TokenGroups

ROWS_AT_A_TIME = 1024
"""Pairs of user and candidate that the default scores at once."""

State = dict[str, tf.Tensor]
"""A user's side by name, each tensor [R, ...]."""


class TwoSided:
    """The default of the protocol, mixed into :class:`~loopctr_tf.models.base.RankingModel`."""

    def encode_user(self, tokens: TokenGroups, heads: tuple[str, ...]) -> list[State]:
        """The user's side for each of ``heads``; what they share is computed once.

        Args:
          tokens: request tokens [R, d_g] and sequences [R, T, d_g]; no candidates.
          heads: the outputs that :meth:`rank` will be called for.
        """
        state = {f"request_{i}": token for i, token in enumerate(tokens.request)}
        for i, sequence in enumerate(tokens.sequences):
            state[f"tokens_{i}"], state[f"lengths_{i}"] = sequence.tokens, sequence.lengths
            for name, values in sequence.numbers.items():
                state[f"numbers_{i}_{name}"] = values
        return [state] * len(heads)

    def state_specs(self, head: str, dtype: tf.DType) -> dict[str, tf.TensorSpec] | None:
        """Name -> TensorSpec [None, ...] of a stored state, sizes alike for all users.

        None where nothing worth storing is computed from the user's side alone, as in the default.
        ``dtype`` is that of numbers; :meth:`rank` casts them back.
        """
        return None

    def rank(self, state: State, candidates: TokenGroups, head: str) -> tf.Tensor:
        """Probability float32 [R, N].

        Args:
          state: of :meth:`encode_user` for ``head``.
          candidates: item and cross tokens [R, N, d_g]; no request tokens, no sequences.
          head: the output.
        """

        def score(tokens):
            logits = self.forward(self._repeated(state, tokens), False, (head,)).logits
            return tf.reshape(tf.sigmoid(tf.cast(logits, tf.float32)), tf.shape(tokens[0])[:2])

        return rank_in_chunks(candidates.candidate, WEIGHTS_AT_A_TIME // ROWS_AT_A_TIME, score)

    def _repeated(self, state: State, candidates: list[tf.Tensor]) -> TokenGroups:
        """Rows of every user with each of its candidates [R, n, d_g], R n of them."""
        count = tf.shape(candidates[0])[1]

        def repeat(value):
            return tf.repeat(value, count, axis=0)

        sequences = []
        for i in range(len(self.schema.sequences)):
            tokens, lengths = repeat(state[f"tokens_{i}"]), repeat(state[f"lengths_{i}"])
            prefix = f"numbers_{i}_"
            numbers = {
                name.removeprefix(prefix): repeat(value)
                for name, value in state.items()
                if name.startswith(prefix)
            }
            mask = tf.sequence_mask(lengths, tf.shape(tokens)[1])
            sequences.append(SequenceTokens(tokens, lengths, mask, numbers))
        request = [repeat(state[f"request_{i}"]) for i in range(len(self.schema.request_features))]
        flat = [tf.reshape(token, [-1, token.shape[-1]]) for token in candidates]
        return TokenGroups(request, flat, sequences)

    def cascade(
        self,
        user: TokenGroups,
        candidates: TokenGroups,
        refine_top_k: tf.Tensor,
        heads: tuple[str, str],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One head for all candidates, another one for each request's best.

        Args:
          user: request tokens [R, d_g] and sequences.
          candidates: item and cross tokens [R, N, d_g].
          refine_top_k: int32 [R]; how many of the best candidates by the first head are scored again
            by the second. More than N means N, less than 0 means 0.
          heads: the first and the second.

        Returns:
          (probability float32 [R, N], refined bool [R, N]).
        """
        first, second = self.encode_user(user, heads)
        probability = self.rank(first, candidates, heads[0])
        size = tf.shape(probability)[1]
        counts = tf.clip_by_value(refine_top_k, 0, size)
        most = tf.reduce_max(tf.concat([counts, [0]], axis=0))
        _, best = tf.math.top_k(probability, most)  # [R, K]
        picked = [tf.gather(token, best, axis=1, batch_dims=1) for token in candidates.candidate]
        refined = self.rank(second, candidates._replace(candidate=picked), heads[1])
        chosen = tf.sequence_mask(counts, most)
        request = tf.repeat(tf.range(tf.shape(best)[0])[:, None], most, axis=1)
        places = tf.boolean_mask(tf.stack([request, best], axis=-1), chosen)  # [pairs, 2]
        probability = tf.tensor_scatter_nd_update(
            probability, places, tf.boolean_mask(refined, chosen)
        )
        marks = tf.scatter_nd(places, tf.ones_like(places[:, 0]), tf.shape(probability))
        return probability, marks > 0
