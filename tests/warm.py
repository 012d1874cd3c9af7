"""What the server of `programs.quick` imports before it forks: everything that a run imports, and one tiny run.

The run fills what a process computes once (Hydra's plugins, the grammars' tables, torchmetrics' classes). Only on Linux, whose
libraries can be forked after they computed, and without CUDA, which cannot.
"""

import contextlib
import gc
import io
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import PIL.Image  # noqa: F401
from programs import TINY

import faceattr
import faceattr.commands.evaluate
import faceattr.commands.predict
import faceattr.commands.train
import faceattr.data.sources.sample

if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
    quiet = (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    )
    with contextlib.ExitStack() as stack:
        for context in quiet:  # the warnings too: a fork shows its own
            stack.enter_context(context)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        faceattr.train(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={folder}")
    gc.freeze()  # a fork's garbage collection looks at its own objects only
