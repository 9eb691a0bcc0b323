"""Where `Lookahead` was; it is with the other optimizers of the GANs now."""

from ylg.gan.lookahead import Lookahead

__all__ = ["Lookahead"]
