"""The signatures of an export: each a traced function on raw features, named as operators call it.

For a model whose heads are `loop_0` ... `loop_I`:

| signature | inputs | outputs |
|---|---|---|
| `serving_default`, `loop_0` ... `loop_I` | every feature, [B, ...] | `probability` [B] |
| `all_depths` | the same | `probability` [B, I + 1] |
| `classify`, `regress` | `inputs`: tf.Example [B] | `classes`, `scores` [B, 2]; `outputs` [B] |
| `rank_loop_0` ... `rank_loop_I` | user and context [R, ...], item and cross [R, N, ...] | \
`probability` [R, N] |
| `cascade` | the same and `refine_top_k` int32 [R] | `probability`, `depth` int32 [R, N] |
| `encode_user_loop_i` | user and context features [R, ...] | `state_*` |
| `rank_cached_loop_i` | `state_*`, item and cross features [R, N, ...] | `probability` [R, N] |

A model with one head has `serving_default`, `classify`, `regress`, `rank`, and, where it computes a
state from the user's side alone, `encode_user` and `rank_cached`. The tensors of a state are those of
``model.state_specs`` with ``state_`` in front, of the same sizes for all users, and ``state_version``
(string [R]), which says which model and head the state belongs to.
"""

import functools
import hashlib
from collections.abc import Callable

import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.export.validity import (
    aligned,
    checked_state_version,
    refine_counts,
    same_sizes,
    validated,
)
from loopctr_tf.features.dataset import parse_examples
from loopctr_tf.models.base import RankingModel, probabilities
from loopctr_tf.scoring.names import (
    CLASSIFY,
    ENCODE_USER,
    RANK_CACHED,
    REGRESS,
    SERVING_DEFAULT,
    STATE_VERSION,
)

ConcreteFunction = tf.types.experimental.ConcreteFunction
Makers = dict[str, Callable[[], ConcreteFunction]]
Specs = dict[str, tf.TensorSpec]

CLASSES = ("0", "1")
STATE = "state_"
"""Prefix of the tensors of a user's state."""


def signature_makers(
    model: RankingModel,
    heads: tuple[str, ...],
    bad_input: str = "reject",
    state_dtype: str = "float32",
) -> Makers:
    """Signature name -> a call that traces it, for ``heads``.

    Raises:
      UsageError: for a ``state_dtype`` other than float32 and float16.
    """
    if state_dtype not in ("float32", "float16"):
        raise UsageError(f"state_dtype is {state_dtype!r}; choose float32 or float16")
    return {
        **_pointwise(model, heads, bad_input),
        **_examples(model, bad_input),
        **_ranking(model, heads, bad_input),
        **_cached(model, heads, bad_input, tf.as_dtype(state_dtype)),
    }


def of_head(name: str, head: str) -> str:
    """The name of a signature of one head: ``rank_loop_0``, or ``rank`` of a lone head."""
    return f"{name}_{head}" if head else name


def _pointwise(model, heads, bad_input) -> Makers:
    specs = {**_user_specs(model.schema), **_candidate_specs(model.schema, rank=False)}

    def maker(score):
        def serve(**features):
            return {"probability": score(validated(features, model.schema, bad_input))}

        # serving_default and the served head are one function.
        return functools.cache(functools.partial(_trace, serve, specs))

    by_head = {head: maker(functools.partial(model.score, head=head)) for head in heads}
    makers = {SERVING_DEFAULT: by_head[model.served]}
    if len(heads) == 1 and not heads[0]:
        return makers

    def all_heads(features):
        return probabilities(model.scores(features, False, heads).logits)

    return {**makers, **by_head, "all_depths": maker(all_heads)}


def _examples(model, bad_input) -> Makers:
    def maker(outputs):
        def serve(inputs):
            features = parse_examples(inputs, model.schema, repair=bad_input == "repair")
            features = validated(features, model.schema, bad_input)
            return outputs(model.score(features, head=model.served))

        return functools.partial(
            _trace, serve, {"inputs": tf.TensorSpec([None], tf.string, "inputs")}
        )

    def as_classes(probability):
        classes = tf.tile(tf.constant([CLASSES]), tf.stack([tf.size(probability), 1]))
        return {"classes": classes, "scores": tf.stack([1 - probability, probability], axis=1)}

    return {
        CLASSIFY: maker(as_classes),
        REGRESS: maker(lambda probability: {"outputs": probability}),
    }


def _ranking(model, heads, bad_input) -> Makers:
    schema = model.schema
    user_specs, candidate_specs = _user_specs(schema), _candidate_specs(schema)

    def sides(features):
        features = validated(features, schema, bad_input)
        return (
            model.encoder({name: features[name] for name in user_specs}),
            model.encoder({name: features[name] for name in candidate_specs}),
        )

    def maker(head):
        def serve(**features):
            user, candidates = sides(features)
            (state,) = model.encode_user(user, (head,))
            return {"probability": model.rank(state, candidates, head)}

        return functools.partial(_trace, serve, {**user_specs, **candidate_specs})

    def cascade(**inputs):
        inputs = aligned(inputs, schema)
        counts = refine_counts(inputs.pop("refine_top_k"), bad_input)
        user, candidates = sides(inputs)
        probability, refined = model.cascade(user, candidates, counts, (heads[0], heads[-1]))
        return {"probability": probability, "depth": tf.where(refined, len(heads) - 1, 0)}

    makers = {of_head("rank", head): maker(head) for head in heads}
    if len(heads) > 1:
        top_k = {"refine_top_k": tf.TensorSpec([None], tf.int32, "refine_top_k")}
        makers["cascade"] = functools.partial(
            _trace, cascade, {**user_specs, **candidate_specs, **top_k}
        )
    return makers


def _cached(model, heads, bad_input, dtype) -> Makers:
    schema = model.schema
    user_specs, candidate_specs = _user_specs(schema), _candidate_specs(schema)
    digest = functools.cache(lambda: weights_digest(model))  # reads every weight: when needed
    makers = {}

    def make(place, head):
        specs = model.state_specs(head, dtype)
        if specs is None:
            return
        specs = {STATE + name: spec for name, spec in specs.items()}

        def version():
            return f"{digest()}/{place}"

        def encode(**features):
            user = model.encoder(validated(features, schema, bad_input))
            (state,) = model.encode_user(user, (head,))
            state = {name: _stored(state[name.removeprefix(STATE)], specs[name]) for name in specs}
            rows = tf.shape(next(iter(state.values())))[0]
            return {**state, STATE_VERSION: tf.fill([rows], version())}

        def rank(**tensors):
            tensors = aligned(tensors, schema)
            checks = [
                checked_state_version(tensors[STATE_VERSION], version()),
                *same_sizes({name: tensors[name] for name in specs}, specs),
            ]
            with tf.control_dependencies(checks):
                state = {name.removeprefix(STATE): tf.identity(tensors[name]) for name in specs}
                candidates = {name: tensors[name] for name in candidate_specs}
                candidates = model.encoder(validated(candidates, schema, bad_input))
                return {"probability": model.rank(state, candidates, head)}

        named = {
            **{name: tf.TensorSpec(s.shape, s.dtype, name) for name, s in specs.items()},
            STATE_VERSION: tf.TensorSpec([None], tf.string, STATE_VERSION),
        }
        makers[of_head(ENCODE_USER, head)] = functools.partial(_trace, encode, user_specs)
        makers[of_head(RANK_CACHED, head)] = functools.partial(
            _trace, rank, {**named, **candidate_specs}
        )

    for place, head in enumerate(heads):
        make(place, head)
    return makers


def _stored(value: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """``value`` in the type of ``spec``, filled up with zeros (or False) to its sizes."""
    value = tf.cast(value, spec.dtype)
    sizes = tf.shape(value)
    ends = [[0, 0 if size is None else size - sizes[axis]] for axis, size in enumerate(spec.shape)]
    return tf.ensure_shape(tf.pad(value, ends), spec.shape)


def weights_digest(model) -> str:
    """Sixteen hexadecimal digits that change with any weight or setting of ``model``."""
    digest = hashlib.sha256(repr((model.config, model.execution, model.schema)).encode())
    with tf.init_scope():  # called while a signature is traced
        for variable in sorted(model.weights, key=lambda variable: variable.name):
            digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


def _user_specs(schema) -> Specs:
    return {name: each.tensor_spec() for name, each in schema.inputs.items() if not each.candidate}


def _candidate_specs(schema, rank: bool = True) -> Specs:
    return {name: each.tensor_spec(rank) for name, each in schema.inputs.items() if each.candidate}


def _trace(function, specs) -> ConcreteFunction:
    return tf.function(function, autograph=False).get_concrete_function(**specs)
