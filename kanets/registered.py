"""The classes of ours that Keras finds in saved files: imported, registered.

Imported right after Keras, be it amid the import of any module of ours. So
what is imported here takes names only from modules whose package imports Keras
before them, or which need no Keras; `tests/test_lazy.py` tries all beginnings.
"""
# ruff: noqa: F401

import kanets.attention.adaptive_span
import kanets.attention.additive
import kanets.attention.axial
import kanets.attention.axis_gates
import kanets.attention.causal_span
import kanets.attention.channel_gates
import kanets.attention.context
import kanets.attention.cross_covariance
import kanets.attention.dense
import kanets.attention.efficient_additive
import kanets.attention.hierarchical
import kanets.attention.kronecker
import kanets.attention.linear
import kanets.attention.lsh
import kanets.attention.multi_query
import kanets.attention.neighborhood
import kanets.attention.non_local
import kanets.attention.separable
import kanets.attention.single_head
import kanets.attention.single_head_modulation
import kanets.attention.smyrf
import kanets.attention.spatial_reduction
import kanets.attention.windows
import kanets.language.captioner
import kanets.language.matcher
import kanets.layers.attention_decoder
import kanets.layers.batch_normalization
import kanets.layers.inverted_residual
import kanets.layers.layer_scale
import kanets.layers.pixel_scale
import kanets.layers.position_embeddings
import kanets.layers.resize_like
import kanets.layers.split_tokens
import kanets.quantization.net
import kanets.train.losses
import kanets.train.optimizers
import ylg.registered
