"""The classes of ours that Keras finds in saved files: imported, registered.

The rule of `kanets.registered` holds here, too.
"""
# ruff: noqa: F401

import kanets.attention.local_sparse
import kanets.attention.spectral_normalization
import kanets.attention.superconcentrator_attention
import ylg.gan.lookahead
import ylg.gan.optimizer_pair
import ylg.gan.sagan
import ylg.layers.conditional_batch_normalization
import ylg.layers.gated_attention
