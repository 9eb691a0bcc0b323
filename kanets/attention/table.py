"""The one table of mechanisms, and layers from what people write.

Wherever attention is chosen (`KANet`, `KANetSegmenter`, `AttnModule`, `SAGAN`,
a recipe, a saved configuration), it is written in the same ways: see `make`.
A new mechanism is a layer in a file of its own and a line here.
"""

import dataclasses
import functools
import inspect

import keras

from kanets.attention.adaptive_span import AdaptiveSpanAttention
from kanets.attention.axial import AxialAttention
from kanets.attention.axis_gates import (
    CoordinateAttention,
    EfficientLocalAttention,
)
from kanets.attention.channel_gates import (
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    SqueezeExcitation,
)
from kanets.attention.context import GlobalContextAttention
from kanets.attention.cross_covariance import CrossCovarianceAttention
from kanets.attention.dense import DenseAttention
from kanets.attention.efficient_additive import EfficientAdditiveAttention
from kanets.attention.kronecker import KroneckerAttention
from kanets.attention.linear import LinearAttention
from kanets.attention.local_sparse import (
    LocalSparseAttention2D,
    NonLocalAttention2D,
)
from kanets.attention.lsh import LSHAttention
from kanets.attention.multi_query import MultiQueryAttention
from kanets.attention.neighborhood import NeighborhoodAttention
from kanets.attention.non_local import NonLocalAttention
from kanets.attention.separable import SeparableAttention
from kanets.attention.single_head import SingleHeadAttention
from kanets.attention.single_head_modulation import SingleHeadModulation
from kanets.attention.smyrf import SMYRFAttention
from kanets.attention.spatial_reduction import SpatialReductionAttention
from kanets.attention.windows import WindowAttention
from kanets.checks import nearest


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """What a name stands for.

    Attributes:
        layer: its class, from (B, *grid, C) to the same shape.
        arguments: those of the layer that the name stands for.
        block: its form as SAGAN's block, with a gate and spectrally normalised
            maps; or None, where such a net puts its own gate around the layer.
    """

    layer: type
    arguments: dict = dataclasses.field(default_factory=dict)
    block: type | None = None

    def form(self, block):
        """The class that stands in a net or, if it has one, as a block."""
        return self.block if block and self.block else self.layer


MECHANISMS = {
    "kao_qkv": Mechanism(KroneckerAttention, {"mode": "qkv"}),
    "kao_kv": Mechanism(KroneckerAttention, {"mode": "kv"}),
    "kao_rectified": Mechanism(
        KroneckerAttention,
        {"mode": "qkv", "rectify": True, "projections": "qkvo"},
    ),
    "dense": Mechanism(DenseAttention, {"pool_size": 1}, NonLocalAttention2D),
    "dense_pool": Mechanism(DenseAttention, {"pool_size": 2}),
    "axial": Mechanism(AxialAttention),
    # Without its own input and gate: what it stands in has those.
    "ylg": Mechanism(
        LocalSparseAttention2D,
        {"residual": False, "pool_size": 1},
        LocalSparseAttention2D,
    ),
    "lsh": Mechanism(LSHAttention),
    "smyrf": Mechanism(SMYRFAttention),
    "adaptive_span": Mechanism(AdaptiveSpanAttention),
    "window": Mechanism(WindowAttention),
    "neighborhood": Mechanism(NeighborhoodAttention, {"clip": True}),
    "multi_query": Mechanism(MultiQueryAttention),
    "linear": Mechanism(LinearAttention),
    "single_head": Mechanism(SingleHeadAttention),
    "squeeze_excitation": Mechanism(SqueezeExcitation),
    "efficient_channel": Mechanism(EfficientChannelAttention),
    "cbam": Mechanism(ConvolutionalBlockAttention),
    "global_context": Mechanism(GlobalContextAttention),
    "coordinate": Mechanism(CoordinateAttention),
    "efficient_local": Mechanism(EfficientLocalAttention),
    "separable": Mechanism(SeparableAttention),
    "efficient_additive": Mechanism(EfficientAdditiveAttention),
    "spatial_reduction": Mechanism(SpatialReductionAttention),
    "cross_covariance": Mechanism(CrossCovarianceAttention),
    "single_head_modulation": Mechanism(SingleHeadModulation),
    "non_local": Mechanism(NonLocalAttention),
}
SPELLINGS = {"neighbourhood": "neighborhood"}


def names():
    """The names of all mechanisms."""
    return list(MECHANISMS)


def make(identifier, *, scale=None, dtype=None, name=None):
    """An attention layer, from what people write.

    Args:
        identifier: None; one of `names()`; a dictionary with such a "name"
            and arguments of its layer; a function of the keywords scale, dtype
            and name that returns a new layer (B, *grid, C) -> (B, *grid, C);
            any other callable that returns one, called without arguments; or
            such a layer.
        scale: of the logits, where the layer has one and the identifier does
            not say.
        dtype: a policy or its name; None is Keras's default.
        name: of the layer.

    Returns:
        A `keras.layers.Layer`, or None for None.

    Raises:
        ValueError: an unknown name or argument, with the nearest known one;
            a value that the layer refuses; what makes no layer.

    Example:

    >>> make({"name": "kao_kv", "num_heads": 4}, scale="rsqrt").num_heads
    4
    """
    if identifier is None or isinstance(identifier, keras.layers.Layer):
        return identifier
    mechanism, given = resolve(identifier)
    keywords = {"scale": scale, "dtype": dtype, "name": name}
    if mechanism is None:
        takes = _named_parameters(identifier)
        layer = identifier(**(keywords if set(keywords) <= takes else {}))
        if not isinstance(layer, keras.layers.Layer):
            raise _error(identifier)
        return layer
    if "scale" not in parameters(mechanism.layer):
        del keywords["scale"]
    return mechanism.layer(**{**keywords, **mechanism.arguments, **given})


def check(identifier, block=False):
    """Raises what `make` would raise; a callable is not called."""
    if identifier is None or isinstance(identifier, keras.layers.Layer):
        return
    mechanism, given = resolve(identifier, block)
    if mechanism is not None:
        own = {} if block and mechanism.block else mechanism.arguments
        mechanism.form(block)(**{**own, **given}, name="checked")


def resolve(identifier, block=False):
    """The `Mechanism` of a name or a dictionary, and the arguments given.

    Args:
        identifier: as in `make`, but no layer and not None.
        block: whether the arguments are those of the block.

    Returns:
        A pair; (None, {}) for a callable.

    Raises:
        ValueError: as `make`.
    """
    if not isinstance(identifier, str | dict):
        is_layer = isinstance(identifier, keras.layers.Layer)
        if is_layer or not callable(identifier):  # a layer is callable, too
            raise _error(identifier)
        return None, {}
    is_name = isinstance(identifier, str)
    given = {"name": identifier} if is_name else dict(identifier)
    name = given.pop("name", None)
    mechanism = None
    if isinstance(name, str):
        mechanism = MECHANISMS.get(SPELLINGS.get(name, name))
    if mechanism is None:
        raise _error(identifier, name)
    known = sorted(parameters(mechanism.form(block)))
    for argument in given:
        if argument not in known:
            raise ValueError(
                f"The arguments of attention {name!r} are {known}"
                f"{nearest(argument, known)}. "
                f"Received: attention={identifier!r}"
            )
    return mechanism, given


@functools.cache
def parameters(layer):
    """Names of the arguments of a class of layers that are its own."""
    found = set()
    for kind in layer.__mro__:
        if kind is keras.layers.Layer:
            break
        if "__init__" in vars(kind):
            found |= _named_parameters(kind.__init__)
    return found - {"self", "implementation", *getattr(layer, "untaken", ())}


def _named_parameters(function):
    return {
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _error(identifier, name=""):
    return ValueError(
        f"attention must be one of {sorted(MECHANISMS)}, a dictionary with "
        "such a name and arguments, or a callable that makes a Keras layer"
        f"{nearest(str(name), MECHANISMS)}. Received: attention={identifier!r}"
    )
