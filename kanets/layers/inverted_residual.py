"""The four modules of a KANet, on MobileNetV2's inverted bottleneck.

Expand by r with a 1x1 convolution, mix space with a 3x3 depthwise one of
stride s, project with a linear 1x1 one; ReLU6 and batch normalisation; the
input is added when s is 1 and the channels match. Gao, Wang and Ji (KDD 2020,
section 3.5) replace part of the expansion: by the input itself ("skip") and
by the maps of an attention operator ("attention").
"""

import keras

from kanets import compat
from kanets.attention import table
from kanets.attention.checks import check_positive
from kanets.attention.grid import average_pool
from kanets.layers.batch_normalization import BatchNormalization

ATTENTIONS = table.MECHANISMS  # where it was, as `make_attention`


def make_attention(attention, **arguments):
    """`kanets.attention.make`, with arguments of a named layer beside it."""
    if isinstance(attention, str):
        attention = {"name": attention}
    if isinstance(attention, dict):
        own = {k: arguments.pop(k) for k in ("dtype", "name") if k in arguments}
        return table.make({**arguments, **attention}, **own)
    return table.make(attention)


class _InvertedResidual(keras.layers.Layer):
    """expand -> depthwise -> project, with a hook after each of the two."""

    def __init__(
        self, filters, expansion=6, strides=1, dilation_rate=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.filters, self.expansion, self.dilation_rate = check_positive(
            filters=filters, expansion=expansion, dilation_rate=dilation_rate
        )
        if strides not in (1, 2):
            raise ValueError(
                f"strides must be 1 or 2. Received: strides={strides!r}"
            )
        if strides > 1 and dilation_rate > 1:
            raise ValueError(
                "A module has a stride or a dilation, not both. Received: "
                f"strides={strides}, dilation_rate={dilation_rate}"
            )
        self.strides = int(strides)

    def _expanded_channels(self, channels):
        return self.expansion * channels

    def _depthwise_channels(self, channels):
        return self.expansion * channels

    def _project_channels(self, channels):
        return self.expansion * channels

    def _after_expand(self, expanded, inputs):
        return expanded

    def _after_depthwise(self, mixed, inputs, training):
        return mixed

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, height, width, channels) with "
                f"known channels. Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        expanded = self._expanded_channels(channels)
        self.expand = None
        if self.expansion > 1:
            self.expand = self._conv(keras.layers.Conv2D, 1, "expand", expanded)
            self.expand_bn = self._norm("expand_bn")
            self.expand.build(input_shape)
            self.expand_bn.build((*input_shape[:-1], expanded))
        widened = (*input_shape[:-1], self._depthwise_channels(channels))
        self.depthwise = self._conv(
            keras.layers.DepthwiseConv2D,
            3,
            "depthwise",
            strides=self.strides,
            dilation_rate=self.dilation_rate,
        )
        self.depthwise_bn = self._norm("depthwise_bn")
        self.depthwise.build(widened)
        self.depthwise_bn.build(widened)
        self.project = self._conv(
            keras.layers.Conv2D, 1, "project", self.filters
        )
        self.project_bn = self._norm("project_bn")
        self.project.build(
            (*input_shape[:-1], self._project_channels(channels))
        )
        self.project_bn.build((*input_shape[:-1], self.filters))
        self.has_residual = self.strides == 1 and channels == self.filters
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        compat.freeze_within(self)
        self.built = True

    def call(self, inputs, training=None):
        x = inputs
        if self.expand is not None:
            x = self.expand_bn(self.expand(x), training=training)
            x = keras.ops.relu6(x)
        x = self._after_expand(x, inputs)
        x = self.depthwise_bn(self.depthwise(x), training=training)
        x = keras.ops.relu6(x)
        x = self._after_depthwise(x, inputs, training)
        x = self.project_bn(self.project(x), training=training)
        return x + inputs if self.has_residual else x

    def compute_output_shape(self, input_shape):
        batch, *grid, _ = input_shape
        grid = [n if n is None else -(-n // self.strides) for n in grid]
        return (batch, *grid, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "expansion": self.expansion,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
        }

    def _conv(self, kind, kernel_size, name, filters=None, **arguments):
        if filters is not None:
            arguments["filters"] = filters
        return kind(
            kernel_size=kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=self.dtype_policy,
            name=name,
            **arguments,
        )

    def _norm(self, name):
        return BatchNormalization(dtype=self.dtype_policy, name=name)


@keras.saving.register_keras_serializable(package="kanets")
class BaseModule(_InvertedResidual):
    """MobileNetV2's inverted residual bottleneck.

    1x1 to r·c maps -> 3x3 depthwise, stride s -> linear 1x1 to `filters`;
    ReLU6 and batch normalisation; the input is added when s = 1 and
    c = `filters`. With r = 1 there is no expansion.

    Args:
        filters: channels of the output.
        expansion: r, in units of the input's channels c.
        strides: s, 1 or 2.
        dilation_rate: d, the distance of the depthwise convolution's taps;
            above 1 only where s is 1.

    Call arguments:
        inputs: float tensor (B, H, W, c).

    Returns:
        Tensor (B, ceil(H/s), ceil(W/s), filters).

    Raises:
        ValueError: `filters`, `expansion` or `dilation_rate` not a positive
            integer, `strides` not 1 or 2, a stride and a dilation together,
            an input that is no picture of known channels.

    Cost: about r·c·(c + filters/s² + 9/s²) multiply-adds a position.

    References: Sandler et al., "MobileNetV2", CVPR 2018, table 1.
    """


@keras.saving.register_keras_serializable(package="kanets")
class BaseSkipModule(_InvertedResidual):
    """The bottleneck with the input as one of its r expansions.

    1x1 to (r-1)·c maps, concatenated with the c of the input -> 3x3
    depthwise, stride s -> linear 1x1; otherwise `BaseModule`.

    Args:
        filters, strides, dilation_rate: as in `BaseModule`.
        expansion: r, 2 or more.

    Call arguments, Returns, Raises: as `BaseModule`.

    References: Kronecker Attention Networks (KDD 2020), section 3.5.
    """

    def __init__(
        self, filters, expansion=6, strides=1, dilation_rate=1, **kwargs
    ):
        super().__init__(filters, expansion, strides, dilation_rate, **kwargs)
        _require_expansion(expansion)

    def _expanded_channels(self, channels):
        return (self.expansion - 1) * channels

    def _after_expand(self, expanded, inputs):
        return keras.ops.concatenate([expanded, inputs], axis=-1)


@keras.saving.register_keras_serializable(package="kanets")
class AttnModule(_InvertedResidual):
    """The bottleneck with attention maps as one of its r expansions.

    Two paths from the input, concatenated to r·c maps before the last 1x1:
    a convolution path (1x1 to (r-1)·c, 3x3 depthwise of stride s), and an
    attention operator that gives c maps, average-pooled by s when s > 1.

    The literal form of the paper trains badly: the attention maps reach the
    concatenation at another scale than the convolution maps beside them. By
    default they get what those get, batch normalisation and ReLU6; that is what
    helps. Logits are multiplied by 1/sqrt(D), which makes no clear difference
    then, and keeps products of wide maps within half precision.
    `attention_scale=None`, `attention_norm=False` and
    `attention_activation=None` give the literal form. The measurements are in
    `benchmarks/attention_path.csv`.

    Args:
        filters, strides, dilation_rate: as in `BaseModule`.
        expansion: r, 2 or more.
        attention: one of `kanets.attention.names()` ("ylg" is for pictures of
            known size), a dictionary of such a name and arguments, or what
            else `kanets.attention.make` takes, for (B, H, W, c); None leaves
            the path out: (r-1)·c maps reach the last 1x1.
        attention_scale: scale of the logits, where `attention` does not say.
        attention_norm: whether the attention maps are batch-normalised.
        attention_activation: what follows, a name of `keras.activations` or
            None. In `AttnSkipModule` the input is added after it.

    Call arguments, Returns: as `BaseModule`.

    Raises:
        ValueError: as `BaseModule`; an unknown attention.

    References: Kronecker Attention Networks (KDD 2020), section 3.5.
    """

    adds_input = False

    def __init__(
        self,
        filters,
        expansion=6,
        strides=1,
        attention="kao_qkv",
        attention_scale="rsqrt",
        attention_norm=True,
        attention_activation="relu6",
        dilation_rate=1,
        **kwargs,
    ):
        super().__init__(filters, expansion, strides, dilation_rate, **kwargs)
        _require_expansion(expansion)
        self.attention_activation = keras.activations.get(attention_activation)
        self.attention_scale = attention_scale
        self.attention_norm = attention_norm
        is_written = isinstance(attention, str | dict)
        self._identifier = attention if is_written else None
        self.attention = table.make(
            attention,
            scale=attention_scale,
            dtype=self.dtype_policy,
            name="attention",
        )

    def build(self, input_shape):
        # A layer that was given or loaded may be built already.
        if self.attention is not None and not self.attention.built:
            self.attention.build(input_shape)
        if self.attention is not None and self.attention_norm:
            self.attention_bn = self._norm("attention_bn")
            self.attention_bn.build(input_shape)
        super().build(input_shape)

    def _expanded_channels(self, channels):
        return (self.expansion - 1) * channels

    _depthwise_channels = _expanded_channels

    def _project_channels(self, channels):
        parts = self.expansion - (self.attention is None)
        return parts * channels

    def _after_depthwise(self, mixed, inputs, training):
        if self.attention is None:
            return mixed
        maps = self.attention(inputs)
        if self.attention_norm:
            maps = self.attention_bn(maps, training=training)
        maps = self.attention_activation(maps)
        if self.adds_input and self.strides == 1:
            maps = maps + inputs
        if self.strides > 1:
            maps = average_pool(maps, self.strides)
        return keras.ops.concatenate([mixed, maps], axis=-1)

    def compute_output_spec(self, inputs, training=None):
        if self.attention is not None:  # what it refuses
            maps = self.attention.compute_output_spec(inputs)
            if tuple(maps.shape) != tuple(inputs.shape):
                raise ValueError(
                    "Attention in a block must keep the shape. Received: "
                    f"attention={self._identifier!r}, which makes "
                    f"{tuple(maps.shape)} of {tuple(inputs.shape)}"
                )
        return super().compute_output_spec(inputs, training=training)

    def get_config(self):
        attention = self._identifier
        if isinstance(attention, dict):
            attention = dict(attention)
        if attention is None and self.attention is not None:
            attention = keras.saving.serialize_keras_object(self.attention)
        return {
            **super().get_config(),
            "attention": attention,
            "attention_scale": self.attention_scale,
            "attention_norm": self.attention_norm,
            "attention_activation": keras.activations.serialize(
                self.attention_activation
            ),
        }

    @classmethod
    def from_config(cls, config):
        attention = config["attention"]
        if isinstance(attention, dict) and "class_name" in attention:
            layer = keras.saving.deserialize_keras_object(attention)
            config = {**config, "attention": layer}
        return cls(**config)


@keras.saving.register_keras_serializable(package="kanets")
class AttnSkipModule(AttnModule):
    """`AttnModule` whose attention path adds the input when s = 1.

    Args, Call arguments, Returns, Raises: as `AttnModule`.

    References: Kronecker Attention Networks (KDD 2020), section 3.5.
    """

    adds_input = True


def _require_expansion(expansion):
    if expansion < 2:
        raise ValueError(
            "expansion must be 2 or more, as one of its parts is not "
            f"computed by convolution. Received: expansion={expansion}"
        )
