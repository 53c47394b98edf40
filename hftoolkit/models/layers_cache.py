"""What a model that reads one token after the other has to remember, in the place of a cache of keys and values.

Shapes: B = rows.
"""

from transformers.cache_utils import Cache


class StateCache(Cache):
    """A state of fixed size that `generate` carries from token to token, and training from stretch to stretch.

    Args:
        dim: the dimension of its tensors that counts the rows.

    Attributes:
        state: a tensor or a tuple of tensors; None: nothing was read.
        length: tokens that were read, padding included.
    """

    is_compileable = False

    def __init__(self, dim=0):
        super().__init__(layers=[])
        self.dim, self.state, self.length = dim, None, 0

    def get_seq_length(self, layer_idx=0):
        """Number of tokens that were read."""
        return self.length

    def move_on(self, state, tokens):
        """Remember a new state, after so many tokens more."""
        self.state, self.length = state, self.length + tokens

    def change(self, function):
        """Put every tensor of the state through a function."""
        if self.state is not None:
            is_tuple = isinstance(self.state, tuple)
            self.state = tuple(map(function, self.state)) if is_tuple else function(self.state)

    def reorder_cache(self, beam_idx):
        """Take the rows of the beams that go on."""
        self.change(lambda part: part.index_select(self.dim, beam_idx.to(part.device)))

    def batch_repeat_interleave(self, repeats):
        """Every row so many times."""
        self.change(lambda part: part.repeat_interleave(repeats, dim=self.dim))

    def batch_select_indices(self, indices):
        """Some rows."""
        self.change(lambda part: part.index_select(self.dim, indices.to(part.device)))

    def reset(self):
        """Forget everything."""
        self.state, self.length = None, 0
