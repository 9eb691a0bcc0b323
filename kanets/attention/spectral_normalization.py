"""Spectral normalisation that leaves the kernel variable alone.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
ICLR 2018. The estimate of the norm is the paper's; how it is applied differs
from `keras.layers.SpectralNormalization`, see the class.
"""

import keras
from keras import ops

_WRAPPED = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
    keras.layers.Embedding,
)
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="ylg")
class SpectralNormalization(keras.layers.Wrapper):
    """Runs a layer with W / sigma(W) in place of its kernel W.

    With M the kernel as a matrix (inputs, outputs) and u the stored vector:

        v = l2(Mᵀ l2(u))      u' = l2(M v)      sigma = uᵀ M v

    where l2(x) = x / |x|. In training u' replaces u, in sigma and in the
    layer's state: one step of the power iteration per call, under which
    sigma becomes the largest singular value. At inference nothing is stored,
    and sigma is estimated from the stored u. u and v are constants for the
    gradient, sigma is not: dsigma/dM = u vᵀ.

    Why not Keras's layer of this name: it *assigns* W / sigma to the kernel
    at each training call. The gradient then never passes through sigma, so
    the optimizer follows another function than the one that is computed; and
    a discriminator, called on real and on generated pictures in one step, is
    rescaled twice. Here the kernel moves by the optimizer alone.

    Args:
        layer: a convolution, `Dense` or `Embedding`. An embedding's matrix
            is its table transposed, (output_dim, input_dim).
        only_shrink: divide by max(1, sigma), so that a kernel whose norm is
            below 1 stays as it is. False (the paper) divides by sigma.
        iterate_at_inference: also use u' at inference, without storing it.
        **kwargs: of `keras.layers.Layer`. `dtype` changes nothing: outputs
            have the precision of the wrapped layer, the norm is float32.

    Call arguments:
        inputs: what the wrapped layer takes.
        training: whether to advance and store u.

    Returns:
        What the wrapped layer returns, in its shape and dtype. u (inputs,),
        v and sigma are float32 in every precision.

    Raises:
        ValueError: `layer` is of another kind.

    Cost: two products of M with a vector per call, three where u advances;
    a kernel's worth of memory for W / sigma.

    Example:

    >>> conv = SpectralNormalization(keras.layers.Conv2D(16, 3))
    >>> conv(keras.random.normal((2, 8, 8, 3)), training=True).shape
    (2, 6, 6, 16)

    References: Miyato et al., ICLR 2018, section 2.1 and appendix A.
    `only_shrink` and `iterate_at_inference` are what the code of Daras et
    al. (CVPR 2020) does in its 3x3 convolutions.
    """

    def __init__(
        self, layer, only_shrink=False, iterate_at_inference=False, **kwargs
    ):
        if not isinstance(layer, _WRAPPED):
            raise ValueError(
                "layer must be a Conv1D, Conv2D, Conv3D, Dense or Embedding. "
                f"Received: layer={layer!r}"
            )
        # float32 without autocast, so that `call` sees the kernel as it is
        # stored and not rounded to half precision.
        kwargs.update(dtype="float32", autocast=False)
        super().__init__(layer, **kwargs)
        self.only_shrink = only_shrink
        self.iterate_at_inference = iterate_at_inference

    def build(self, input_shape):
        super().build(input_shape)
        if isinstance(self.layer, keras.layers.Embedding):
            rows = self.layer.output_dim
        else:
            rows = 1
            for size in self._kernel_variable().shape[:-1]:
                rows *= size
        self.left_singular_vector = self.add_weight(
            shape=(rows,),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
            dtype="float32",
            name="left_singular_vector",
        )

    def call(self, inputs, training=False):
        kernel = self._kernel_variable()
        sigma = self.spectral_norm(training)
        if self.only_shrink:
            sigma = ops.maximum(sigma, 1.0)
        normalized = ops.cast(kernel, "float32") / sigma
        # The layer reads its variables inside the scope, so that it finds
        # the normalised kernel. A scope hides an outer one: all are listed.
        values = [(v, v.value) for v in self.layer.variables if v is not kernel]
        with keras.StatelessScope(
            [*values, (kernel, normalized)],
            collect_losses=True,
            initialize_variables=False,
        ) as scope:
            outputs = self.layer(inputs)
        for loss in scope.losses:  # of an activity regularizer
            self.add_loss(loss)
        return outputs

    def spectral_norm(self, training=False):
        """The estimate of sigma, a float32 scalar; in training u advances."""
        matrix = ops.cast(self._kernel_variable(), "float32")
        if isinstance(self.layer, keras.layers.Embedding):
            matrix = ops.transpose(matrix)
        matrix = ops.reshape(matrix, (-1, matrix.shape[-1]))
        constant = ops.stop_gradient(matrix)
        u = _l2(self.left_singular_vector.value)
        v = _l2(ops.matmul(u, constant))
        if training or self.iterate_at_inference:
            u = _l2(ops.matmul(constant, v))
        if training:
            self.left_singular_vector.assign(u)
        sigma = ops.sum(ops.stop_gradient(u) * ops.matmul(matrix, v))
        return ops.maximum(sigma, _EPSILON)  # a kernel of zeros stays zero

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, inputs, training=False):
        return self.layer.compute_output_spec(inputs)

    def get_config(self):
        config = super().get_config()
        # `build` builds the wrapped layer, so that its weights have the same
        # paths in a copy.
        config["layer"].pop("build_config", None)
        return {
            **config,
            "only_shrink": self.only_shrink,
            "iterate_at_inference": self.iterate_at_inference,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # A copy: Keras's takes "layer" out of the dictionary it is given.
        return super().from_config(dict(config), custom_objects)

    def _kernel_variable(self):
        if isinstance(self.layer, keras.layers.Embedding):
            return self.layer.embeddings
        return self.layer.kernel


def _l2(x):
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x)), _EPSILON))
