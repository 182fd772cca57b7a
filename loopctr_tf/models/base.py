"""RankingModel: what every model shares. A model writes its layers and one forward pass.

The seam between a model and the rest of the library is narrow: token groups come in, logits by *head*
go out. A head is a named output; most models have one, called "", and LoopCTR has one for each depth.
Training, evaluation, export and benchmarks know heads and nothing of a model's insides.
"""

from typing import Any, ClassVar, NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.layers.common import build
from loopctr_tf.models.chunks import in_chunks
from loopctr_tf.models.encoder import FeatureEncoder, TokenGroups, TokenWidths
from loopctr_tf.models.objective import Objective, replicas
from loopctr_tf.models.settings import ExecutionConfig, ModelConfig
from loopctr_tf.models.two_sided import TwoSided
from loopctr_tf.settings import suggestion

ROWS_AT_A_TIME = 256
"""Rows scored at once: halves the memory of 2,048 rows of 100 events, and takes no longer."""

no_autograph = tf.autograph.experimental.do_not_convert
"""All control flow is explicit; AutoGraph would find nothing and triple the time of tracing."""


class Scores(NamedTuple):
    """What a forward pass returns.

    Attributes:
      logits: [B, heads].
      losses: name -> this replica's share of a regulariser; shares add up over replicas.
    """

    logits: tf.Tensor
    losses: dict[str, tf.Tensor] = {}  # noqa: RUF012 (a NamedTuple's default, never changed)


class RankingModel(TwoSided, keras.Model):
    """The base of all models.

    ``model(features)`` is logits [B, heads]; ``model.score(features, head)`` the probability [B] of one
    head; ``model.predict(dataset)`` probabilities [rows, heads]. ``fit`` needs ``compile(optimizer)``
    alone: the objective is the model's own, and metrics given to ``compile`` see the served head.

    A model sets ``config_class``, writes :meth:`build_layers` and :meth:`forward`, and where it has
    several heads, :attr:`heads`, :attr:`served` and :meth:`head_weights`.

    Args:
      schema: of the features.
      config: what the model is; of ``config_class``.
      execution: how it is executed.
      name: Keras's.
      **settings: settings of either, by name, e.g. ``LoopCTR(schema, dim=32, xla=True)``.

    Raises:
      UsageError: for settings that do not exist or do not fit together, and for an unfitted schema.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    executions: ClassVar[frozenset[str]] = frozenset({"precision", "xla"})
    """Execution settings that mean something to the model."""

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig | None = None,
        execution: ExecutionConfig | None = None,
        name: str | None = None,
        **settings: Any,
    ):
        config, execution = self._settings(config, execution, settings)
        policy = keras.mixed_precision.Policy(execution.precision)
        # Without casts of its inputs: a number in the logs may need all digits of float32.
        super().__init__(name=name, autocast=False, dtype=policy)
        _check_fitted(schema)
        self.schema, self.config, self.execution = schema, config, execution
        self.objective: Objective | None = None
        self.encoder = FeatureEncoder(
            schema,
            config.embedding_dim or config.dim,
            config.event_recency,
            name="encoder",
            dtype=policy,
        )
        # All shapes are known, so that weights exist (and can be loaded) before the first batch.
        with tf.name_scope(self.name):
            build(self.encoder)
            self.build_layers(self.encoder.token_widths)
        self.built = True
        self._compiled_forward = tf.function(self.forward, jit_compile=True, autograph=False)

    @classmethod
    def _settings(cls, config, execution, settings) -> tuple[ModelConfig, ExecutionConfig]:
        config, execution = config or cls.config_class(), execution or ExecutionConfig()
        if not isinstance(config, cls.config_class):
            raise UsageError(
                f"config is a {type(config).__name__}; {cls.__name__} takes a "
                f"{cls.config_class.__name__}"
            )
        known = (cls.config_class.model_fields, ExecutionConfig.model_fields)
        for name in settings:
            if not any(name in fields for fields in known):
                names = [name for fields in known for name in fields]
                raise UsageError(f"model setting {name!r} does not exist{suggestion(name, names)}")
        model, executed = ({n: v for n, v in settings.items() if n in fields} for fields in known)
        if model:
            config = cls.config_class.from_dict({**config.to_dict(), **model})
        execution = ExecutionConfig.from_dict({**execution.to_dict(), **executed})
        for name, value in execution.non_default().items():
            if name not in cls.executions:
                raise UsageError(
                    f"{name} is {value!r}, which {cls.__name__} does not use; leave it out"
                )
        return config, _with_precision(execution)

    # What a model writes.

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates and builds all layers for token groups of ``widths``."""
        raise NotImplementedError(f"{type(self).__name__} has no build_layers")

    def forward(self, tokens: TokenGroups, training, heads: tuple[str, ...]) -> Scores:
        """Scores of rows: request and candidate tokens [B, d_g], sequences [B, T, d_g].

        Args:
          tokens: embedded features.
          training: whether dropout is on and regularisers are needed.
          heads: the outputs wanted, the columns of the logits.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the trained outputs."""
        return ("",)

    @property
    def served(self) -> str:
        """The head of ``serving_default`` and of the default monitor."""
        return self.heads[0]

    def heads_to(self, loops: int | None) -> tuple[str, ...]:
        """The heads up to ``loops`` loops; None means the trained ones. UsageError without loops."""
        if loops is not None:
            raise UsageError(
                f"loops is {loops!r}; {type(self).__name__} has no loops, leave it out"
            )
        return self.heads

    def loops_of(self, head: str) -> int | None:
        """The number of loops that ``head`` stands for, None where a model has no loops."""
        return None

    @property
    def head_weights(self) -> tuple[float, ...]:
        """Weight of each head's cross-entropy in the objective."""
        return (1 / len(self.heads),) * len(self.heads)

    @property
    def regularizers(self) -> dict[str, float]:
        """Weight of each of the losses that :meth:`forward` returns, by name."""
        return {}

    # Keras's side.

    @no_autograph
    def call(self, features, training=None, heads: tuple[str, ...] | None = None) -> tf.Tensor:
        """Logits [B, heads] of a mapping of raw features; the trained heads by default."""
        return self.scores(features, training, heads or self.heads).logits

    def tokens(self, features) -> TokenGroups:
        """Raw features, embedded; features beyond the schema are ignored."""
        return self.encoder({name: features[name] for name in self.schema.inputs})

    def scores(self, features, training, heads: tuple[str, ...]) -> Scores:
        """Logits and regularisers of raw features."""
        tokens = self.tokens(features)
        if self.execution.xla and training:
            return self._compiled_forward(tokens, training, heads)
        return self.forward(tokens, training, heads)

    def score(self, features, head: str | None = None) -> tf.Tensor:
        """Probability float32 [B] of one head, the served one by default.

        Rows pass in chunks of :data:`ROWS_AT_A_TIME`.
        """
        heads = (self.served if head is None else head,)
        features = {name: features[name] for name in self.schema.inputs}
        rows = tf.shape(next(iter(features.values())))[0]

        def score(start, end):
            chunk = {name: value[start:end] for name, value in features.items()}
            return probabilities(self.scores(chunk, False, heads).logits)[:, 0]

        scored = in_chunks(rows, ROWS_AT_A_TIME, score)
        scored.set_shape([None])
        return scored

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        """Keras's compile, without ``loss``: the objective is the model's own."""
        if loss is not None:
            raise UsageError(f"loss is {loss!r}; leave it out, the model brings its own objective")
        if kwargs.get("jit_compile"):
            raise UsageError(
                "jit_compile is True; leave it out and make the model with xla=True: XLA cannot "
                "compile strings, and so not the whole step"
            )
        super().compile(optimizer=optimizer, **kwargs)
        with self.distribute_strategy.scope():
            self.objective = Objective(self.heads, self.head_weights, self.regularizers)
            # Variables made while a step is traced would have it traced twice.
            if isinstance(self.optimizer, keras.optimizers.Optimizer):
                self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def metrics(self):
        """The objective's metrics, then those given to ``compile``."""
        if self.objective is None:
            return []
        return [*self.objective.tracked_metrics, *self.compiled_metrics.metrics]

    @no_autograph
    def train_step(self, data):
        """One step on (features, label[, sample weight]); the weights are the objective's alone."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            scores = self.scores(features, True, self.heads)
            loss = self.objective(labels, scores.logits, scores.losses, weights)
            if self.losses:
                loss += tf.add_n(self.losses) / replicas()
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self._results(labels, scores.logits, weights)

    @no_autograph
    def test_step(self, data):
        """Metrics on (features, label[, sample weight]), of which only ``loss`` reads weights."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        scores = self.scores(features, False, self.heads)
        self.objective(labels, scores.logits, scores.losses, weights)
        return self._results(labels, scores.logits, weights)

    @no_autograph
    def predict_step(self, data):
        """Probabilities [B, heads]."""
        features, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return probabilities(self(features, training=False))

    def _results(self, labels, logits, weights):
        if self.compiled_metrics.metrics or self.compiled_metrics._user_metrics:
            served = self.heads.index(self.served)
            labels = tf.reshape(labels, [-1, 1])
            scored = probabilities(logits[:, served : served + 1])
            self.compiled_metrics.update_state(labels, scored, sample_weight=weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self):
        """Constructor arguments: the schema with its vocabularies, and both groups of settings."""
        return {
            "name": self.name,
            "schema": self.schema.to_dict(),
            "config": self.config.to_dict(),
            "execution": self.execution.to_dict(),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of :meth:`get_config`; takes settings in one group too, as saved by 0.1."""
        schema, settings = Schema.from_dict(config["schema"]), config["config"]
        return cls(
            schema, name=config.get("name"), **{**settings, **(config.get("execution") or {})}
        )


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """sigmoid(logits), float32."""
    return tf.sigmoid(tf.cast(logits, tf.float32))


def _with_precision(execution: ExecutionConfig) -> ExecutionConfig:
    """``execution`` with the precision of Keras's global policy where it names none."""
    if execution.precision is not None:
        return execution
    policy = keras.mixed_precision.global_policy().name
    try:
        return ExecutionConfig.from_dict({**execution.to_dict(), "precision": policy})
    except UsageError as error:
        raise UsageError(
            f"Keras's global policy is {policy!r}, which these models do not support; give them a "
            "precision: 'float32' or 'mixed_bfloat16'"
        ) from error


def _check_fitted(schema: Schema) -> None:
    for table in schema.tables:
        if table.vocabulary == ():
            raise UsageError(
                f"table {table.name!r} has an empty vocabulary, so that all its values are one; load "
                "the schema of the prepared folder, where it is fitted, or give it hash_buckets"
            )
