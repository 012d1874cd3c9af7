"""Faster training steps for `trainer.compile`: compiled by torch.compile, or replayed as CUDA graphs.

Both are for batches of the full size; the smaller last one of an epoch runs as it is written.
"""

import inspect
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from faceattr.errors import FaceattrError

if TYPE_CHECKING:
    from faceattr.training.lightning_module import Classifier, StepFunction


def compiled_step(model: "Classifier", setting: str, batch_size: int) -> "StepFunction":
    """`model.step` as `trainer.compile` says: `false`, `graph`, `true` or a mode of torch.compile."""
    if setting == "false":
        return model.step
    if setting == "graph":
        return GraphedStep(model, batch_size)
    mode = None if setting == "true" else "max-autotune-no-cudagraphs" if setting == "max-autotune" else setting
    compiled = torch.compile(model.step, dynamic=False, mode=mode)

    def step(inputs: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        if len(inputs) != batch_size:
            return model.step(inputs, *others)
        loss, sums = compiled(inputs, *others)
        return loss, sums.clone() if mode == "reduce-overhead" else sums  # its memory is used again by the next step

    return step


class GraphedStep:
    """`model.step` and its backward pass as two CUDA graphs: the host launches two graphs instead of every operation.

    They are captured at the first full batch, and again where the finetune policy changes what is trained. Capturing runs some
    steps; the network's buffers and the random state are put back, so that a graphed run goes on as any other.
    """

    def __init__(self, model: "Classifier", batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self._captured_for: tuple[Any, ...] | None = None
        self._graphed: nn.Module | None = None

    def __call__(
        self, inputs: Tensor, targets: Tensor, parameters: Tensor | None, layers_applied: int
    ) -> tuple[Tensor, Tensor]:
        if inputs.device.type != "cuda":
            raise FaceattrError("trainer.compile=graph needs a CUDA device (trainer=gpu).")
        if dist.is_available() and dist.is_initialized():
            raise FaceattrError("trainer.compile=graph is for one device. Use trainer.compile=true with trainer=ddp.")
        if len(inputs) != self.batch_size:
            return self.model.step(inputs, targets, parameters, layers_applied)
        tensors = (inputs, targets) if parameters is None else (inputs, targets, parameters)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        weights = next(self.model.network.parameters()).data_ptr()  # another fit may have moved them
        signature = (self.model.first_trainable_stage, layers_applied, weights, shapes)
        if self._captured_for != signature or self._graphed is None:
            self._graphed = None  # its memory is free for the next
            self._graphed, self._captured_for = self._capture(tensors, layers_applied), signature
        loss, sums = self._graphed(*tensors)
        return loss, sums.detach().clone()  # an output of autograd's, in memory that the next step writes to

    def _capture(self, tensors: tuple[Tensor, ...], layers_applied: int) -> nn.Module:
        model, device = self.model, tensors[0].device
        buffers = [(buffer, buffer.clone()) for buffer in model.network.buffers()]
        random = torch.cuda.get_rng_state(device)
        samples = tuple(tensor.clone() for tensor in tensors)
        keys: dict[str, Any] = {"allow_unused_input": True}
        if "capture_error_mode" in inspect.signature(torch.cuda.make_graphed_callables).parameters:
            keys["capture_error_mode"] = "thread_local"  # a loader's thread may allocate pinned memory meanwhile
        try:
            # the cache of autocast would keep casts of weights from one step to the next
            with torch.autocast(
                "cuda",
                dtype=torch.get_autocast_dtype("cuda"),
                enabled=torch.is_autocast_enabled("cuda"),
                cache_enabled=False,
            ):
                graphed = torch.cuda.make_graphed_callables(_Step(model, layers_applied), samples, **keys)
        except RuntimeError as error:
            raise FaceattrError(f"trainer.compile=graph fails: {str(error).splitlines()[0]}") from error
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(random, device)
        return cast(nn.Module, graphed)


class _Step(nn.Module):
    """A step as a module whose parameters are the network's: what `make_graphed_callables` takes gradients of."""

    def __init__(self, model: "Classifier", layers_applied: int) -> None:
        super().__init__()
        self.network, self.function, self.layers_applied = model.network, model.step, layers_applied

    def forward(self, inputs: Tensor, targets: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loss, sums = self.function(inputs, targets, parameters, self.layers_applied)
        return loss, sums
