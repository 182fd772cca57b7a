"""StackCTR: L distinct Loop Blocks, the paper's comparison at equal computation."""

import tf_keras as keras

from loopctr_tf.layers import LoopBlock
from loopctr_tf.models.loopctr.sandwich import SandwichModel


@keras.utils.register_keras_serializable("loopctr_tf")
class StackCTR(SandwichModel):
    """LoopCTR without weight sharing (section 4.1): iteration i has weights of its own.

    Otherwise the same; it runs at 0 to ``config.loops`` loops.
    """

    def _make_loop_blocks(self, arguments):
        self.loop_blocks = [
            LoopBlock(**arguments, name=f"loop_block_{i}") for i in range(self.config.loops)
        ]

    def _loop_blocks(self):
        return list(self.loop_blocks)

    def loop_block_of(self, iteration):
        """The Loop Block of that iteration."""
        return self.loop_blocks[iteration]

    @property
    def loops_allowed(self):
        """As many loops as there are blocks."""
        return self.config.loops

    @property
    def shares_loop_block(self):
        """False."""
        return False
