"""LoopCTR: one Loop Block, applied L times in training and any number of times in serving."""

import tf_keras as keras

from loopctr_tf.layers import LoopBlock
from loopctr_tf.models.loopctr.sandwich import SandwichModel


@keras.utils.register_keras_serializable("loopctr_tf")
class LoopCTR(SandwichModel):
    """The model of the paper; its use is that of :class:`.SandwichModel`.

    The number of parameters does not depend on ``config.loops``.
    """

    def _make_loop_blocks(self, arguments):
        self.loop_block = LoopBlock(**arguments, name="loop_block")

    def _loop_blocks(self):
        return [self.loop_block]

    def loop_block_of(self, iteration):
        """The one Loop Block."""
        return self.loop_block
