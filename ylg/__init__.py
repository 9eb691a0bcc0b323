"""ylg: two-dimensional local sparse attention, and GANs built on it.

Nothing loads before it is used; `__init__.pyi` lists what there is.
"""

import lazy_loader
import wrapt

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("keras")
def _register(_):
    """Lets Keras find our classes in saved files, whoever imported first."""
    import ylg.registered  # noqa: F401
