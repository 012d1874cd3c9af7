"""What serve.py runs: a page and a JSON API for one model, until a signal ends it."""

import io
import logging
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from faceattr.config.instantiate import group_settings
from faceattr.config.schema import Faces, ServeOptions
from faceattr.config.validate_keys import validate
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detector_file import detector_file
from faceattr.errors import FaceattrError
from faceattr.message_text import PERCEIVED
from faceattr.training.inference_backend import open_backend
from faceattr.training.predictor import Predictor

try:
    import uvicorn

    from faceattr.commands.serving.accuracy_summary import accuracy_summary, read_model_card
    from faceattr.commands.serving.app import create_app
    from faceattr.commands.serving.classify_upload import PhotoClassifier
    from faceattr.commands.serving.http_errors import Problem
    from faceattr.commands.serving.security import SecurityMiddleware, is_loopback
    from faceattr.commands.serving.slow_clients import TimedProtocol
except ImportError as error:
    raise FaceattrError(f"serve needs the package {error.name}: pip install {error.name}") from error

log = logging.getLogger(__name__)

CONNECTIONS = 512
"""The most at a time; uvicorn answers 503 to further ones."""


def serve(cfg: DictConfig) -> None:
    """Loads the model, opens the port, and answers until a signal comes; then finishes what is under way."""
    cfg = validate(cfg)
    app = application(cfg)
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # else a line for each malformed request,
    warnings.filterwarnings("ignore", module="PIL")  # and for each odd image
    with _listening(cfg.host, cfg.port) as listener:
        config = uvicorn.Config(
            app,
            http=TimedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=int(cfg.serve.timeout) + 1,
        )
        server = uvicorn.Server(config)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, server.handle_exit)  # uvicorn itself handles SIGTERM and SIGINT
        server.run(sockets=[listener])


def application(cfg: DictConfig) -> SecurityMiddleware:
    """The ASGI application of the model in `cfg.ckpt`, which has answered once."""
    limits = group_settings(cfg.serve, ServeOptions)
    model = Predictor(open_backend(Path(cfg.ckpt), accelerator=cfg.accelerator))
    metadata = model.metadata
    faces = FaceRecipe.from_config(group_settings(cfg.faces, Faces))
    if faces.active and cfg.faces.weights:
        detector_file(cfg.faces.weights)  # into the cache, where the model looks for it
    classifier = PhotoClassifier(model, faces, cfg.abstain, limits.max_pixels, limits.max_faces)
    _check_classifies(classifier)
    facts = metadata | {
        "faces": asdict(faces),
        "abstain": cfg.abstain,
        "summary": accuracy_summary(Path(cfg.ckpt)),
        "notice": PERCEIVED,
        "card": read_model_card(Path(cfg.ckpt)),
    }
    return create_app(classifier, limits, cfg.host, facts)


def _check_classifies(classifier: PhotoClassifier) -> None:
    """Answers for an empty picture: what is missing (the detector's file, a device) is said now, not to the first client."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG")
    (result,) = classifier.classify([stream.getvalue()])
    if isinstance(result, Problem):
        raise FaceattrError(f"The model does not answer: {result}")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes connections; logs its address."""
    if not host.strip():  # to the system this means every address
        raise FaceattrError("host=: give an address, such as 127.0.0.1 (this machine only) or 0.0.0.0 (every address).")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:  # the name of a host, too
        reason = (error.strerror or str(error)).partition(" (")[0]  # create_server repeats the address there
        raise FaceattrError(f"host={host} port={port}: {reason}. Choose another host= or port=.") from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        log.info("Serving at http://%s:%d  (Ctrl-C ends it)", shown, listener.getsockname()[1])
        if not is_loopback(host):
            log.warning("host=%s: whoever reaches this machine can send images; there is no password and no TLS.", host)
        yield listener
