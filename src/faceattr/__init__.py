"""faceattr: train, evaluate and use classifiers of face attributes.

>>> import faceattr
>>> faceattr.__all__
['FaceattrError', 'Predictor', 'Run', 'evaluate', 'load', 'train']

What they are is in `faceattr.api`, which is imported at first use: `import faceattr` alone imports no torch.
"""

from typing import TYPE_CHECKING, Any

from faceattr.errors import FaceattrError

if TYPE_CHECKING:
    from faceattr.api import Predictor, Run, evaluate, load, train

__version__ = "0.1.0"
__all__ = ["FaceattrError", "Predictor", "Run", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from faceattr import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
