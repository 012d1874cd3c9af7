"""Faster steps for `trainer.compile`: compiled by torch.compile, or replayed as CUDA graphs.

Both are for batches of the full size; the smaller last one of an epoch runs as it is written.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from faceattr.errors import FaceattrError

if TYPE_CHECKING:
    from faceattr.training.lightning_module import Classifier

log = logging.getLogger(__name__)

CAPTURABLE = ("torch", "torchvision", "timm", "faceattr")
"""Packages whose modules compute the same at every call. A module that decides in Python, by a counter or by chance, would
decide once, when it is captured, and nobody would notice."""


def compile_steps(model: "Classifier", setting: str, batch_size: int) -> None:
    """Sets `model.run_step`, and `model.run_logits` of validation, as `trainer.compile` says: `auto`, `false`, `graph`, `true`
    or a mode of torch.compile. `model.compiled` names what is used; graphs are decided on at the first full batch."""
    model.run_step, model.run_logits, model.compiled = model.step, model.logits, setting
    if setting in ("auto", "graph"):
        model.compiled = "false"
        graphs = CudaGraphs(model, batch_size, required=setting == "graph")
        model.run_step, model.run_logits = graphs.step, graphs.logits
    elif setting != "false":
        _use_torch_compile(model, setting, batch_size)


def _use_torch_compile(model: "Classifier", setting: str, batch_size: int) -> None:
    # without CUDA graphs of its own: reduce-overhead has them
    mode = None if setting == "true" else "max-autotune-no-cudagraphs" if setting == "max-autotune" else setting
    compiled = torch.compile(model.step, dynamic=False, mode=mode)

    def step(inputs: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        if len(inputs) != batch_size:
            return model.step(inputs, *others)
        loss, sums = compiled(inputs, *others)
        return loss, sums.clone() if mode == "reduce-overhead" else sums  # its memory is used again by the next step

    model.run_step = step


class CudaGraphs:
    """`model.step` with its backward pass, and `model.logits` of validation, as CUDA graphs: the host launches a graph instead
    of every operation.

    They are captured at the first full batch, and again where the finetune policy changes what is trained. Capturing runs some
    steps; the network's buffers and the random state are put back, so that a graphed run goes on as any other.

    required: a network that cannot be captured is a FaceattrError; else it runs as it is written, and the log says why.
    """

    def __init__(self, model: "Classifier", batch_size: int, *, required: bool) -> None:
        self.model, self.batch_size, self.required = model, batch_size, required
        self._step_key: tuple[Any, ...] | None = None
        self._step: nn.Module | None = None
        self._logits_key: tuple[Any, ...] | None = None
        self._logits: _GraphedLogits | None = None
        self._decided = False

    def step(
        self, inputs: Tensor, targets: Tensor, parameters: Tensor | None, layers_applied: int
    ) -> tuple[Tensor, Tensor]:
        """As `Classifier.step`."""
        tensors = (inputs, targets) if parameters is None else (inputs, targets, parameters)
        if len(inputs) != self.batch_size or not self._use_graphs(tensors, layers_applied):
            return self.model.step(inputs, targets, parameters, layers_applied)
        key = (self.model.first_trainable_stage, *self._key(tensors, layers_applied))
        if self._step_key != key or self._step is None:
            self._step = None  # its memory is free for the next
            self._step, self._step_key = self._capture_step(tensors, layers_applied), key
        loss, sums = self._step(*tensors)
        return loss, sums.detach().clone()  # an output of autograd's, in memory that the next step writes to

    def logits(self, inputs: Tensor, layers_applied: int) -> Tensor:
        """As `Classifier.logits`, without gradients."""
        if len(inputs) != self.batch_size or self.model.compiled != "graph" or not inputs.is_cuda:
            return self.model.logits(inputs, layers_applied)
        key = self._key((inputs,), layers_applied)
        if self._logits_key != key or self._logits is None:
            self._logits = None
            with _without_cached_casts():
                self._logits, self._logits_key = _GraphedLogits(self.model, inputs, layers_applied), key
        return self._logits(inputs)

    def _key(self, tensors: tuple[Tensor, ...], layers_applied: int) -> tuple[Any, ...]:
        weights = next(self.model.network.parameters()).data_ptr()  # another fit may have moved them
        return layers_applied, weights, tuple((tensor.shape, tensor.dtype) for tensor in tensors)

    def _use_graphs(self, tensors: tuple[Tensor, ...], layers_applied: int) -> bool:
        """Whether to use graphs: decided, and logged, at the first full batch."""
        if not self._decided:
            reason = self._reason_against(tensors, layers_applied)
            if reason and self.required:
                raise FaceattrError(f"trainer.compile=graph {reason}")
            self._decided, self.model.compiled = True, "false" if reason else "graph"
            if tensors[0].is_cuda:
                log.info(
                    "Steps are %s",
                    f"not replayed: trainer.compile=graph {reason}" if reason else "replayed as CUDA graphs",
                )
        return self.model.compiled == "graph"

    def _reason_against(self, tensors: tuple[Tensor, ...], layers_applied: int) -> str | None:
        if not tensors[0].is_cuda:
            return "needs a CUDA device (trainer=gpu)."
        if dist.is_available() and dist.is_initialized():
            return "is for one device. Use trainer.compile=true with trainer=ddp."
        others = {type(module).__module__.partition(".")[0] for module in self.model.network.modules()} - {*CAPTURABLE}
        if others and not self.required:
            return f"is not chosen for modules of other packages ({', '.join(sorted(others))}). It can be set."
        with self._without_side_effects(tensors[0].device):
            try:
                _check_never_waits(_Step(self.model, layers_applied), tensors)
            except RuntimeError as error:
                if "synchroniz" not in str(error):
                    raise
                return f"does not work: a step waits for the device ({str(error).splitlines()[0]})."
        return None

    def _capture_step(self, tensors: tuple[Tensor, ...], layers_applied: int) -> nn.Module:
        samples = tuple(tensor.clone() for tensor in tensors)
        keys: dict[str, Any] = {"allow_unused_input": True}
        if "capture_error_mode" in inspect.signature(torch.cuda.make_graphed_callables).parameters:
            keys["capture_error_mode"] = "thread_local"  # a loader's thread may allocate pinned memory meanwhile
        with self._without_side_effects(tensors[0].device):
            try:
                graphed = torch.cuda.make_graphed_callables(_Step(self.model, layers_applied), samples, **keys)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise FaceattrError(
                    f"The training step cannot be captured as a CUDA graph: {reason}\nSet trainer.compile=false."
                ) from error
        return cast(nn.Module, graphed)

    @contextmanager
    def _without_side_effects(self, device: torch.device) -> Iterator[None]:
        """For steps that do not count: puts the network's buffers and the random state back."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.network.buffers()]
        random = torch.cuda.get_rng_state(device)
        try:
            with _without_cached_casts():
                yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            torch.cuda.set_rng_state(random, device)


class _Step(nn.Module):
    """A step as a module whose parameters are the network's: what `make_graphed_callables` takes gradients of."""

    def __init__(self, model: "Classifier", layers_applied: int) -> None:
        super().__init__()
        self.network, self.function, self.layers_applied = model.network, model.step, layers_applied

    def forward(self, inputs: Tensor, targets: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loss, sums = self.function(inputs, targets, parameters, self.layers_applied)
        return loss, sums


class _GraphedLogits:
    """`model.logits` of batches like `inputs`, captured."""

    def __init__(self, model: "Classifier", inputs: Tensor, layers_applied: int) -> None:
        self._inputs, self._graph = inputs.clone(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # what is made once, and cuDNN's search
                model.logits(self._inputs, layers_applied)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._logits = model.logits(self._inputs, layers_applied)

    def __call__(self, inputs: Tensor) -> Tensor:
        self._inputs.copy_(inputs)
        self._graph.replay()
        return self._logits.clone()


@contextmanager
def _without_cached_casts() -> Iterator[None]:
    """The cache of autocast would keep casts of weights from one step to the next."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
        yield


def _check_never_waits(step: _Step, tensors: tuple[Tensor, ...]) -> None:
    """Runs a step and its backward pass, where the second time waiting for the device is a RuntimeError: a capture that fails
    would leave the device's random state unusable."""
    trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
    before = torch.cuda.get_sync_debug_mode()
    try:
        for mode in ("default", "error"):  # the first makes what is made once
            torch.cuda.set_sync_debug_mode(mode)
            torch.autograd.grad(step(*tensors)[0], trained, allow_unused=True)
    finally:
        torch.cuda.set_sync_debug_mode(before)
