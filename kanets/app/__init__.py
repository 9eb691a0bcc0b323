"""A page in the browser that tries models: `kanets app`.

`pictures` and `generators` say what is shown, `page` lays it out with Gradio.
"""

from kanets.app.page import build

__all__ = ["build"]
