"""A server of exported bundles without TensorFlow Serving: `kanets serve`.

`bundles` answers requests as TensorFlow Serving's REST interface does, `server`
lets KServe's model server carry them.
"""

from kanets.serve.server import serve

__all__ = ["serve"]
