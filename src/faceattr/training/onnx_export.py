"""Makes model.onnx of a classifier, and variants of it with fp16 weights or int8 arithmetic.

The model takes pixels as they are decoded, uint8 [N, H, W, 3], and gives probabilities: the scaling, the network, the temperature
and the softmax or sigmoids are inside, so that no other program has to repeat them.
"""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from faceattr.errors import FaceattrError
from faceattr.training.exported_folder import INPUT, MOST_ONNX_BYTES, OUTPUT
from faceattr.training.lightning_module import Classifier

LEAST_HALVED = 256
"""Values; smaller tensors stay float32: they take no room."""


class PixelsToProbabilities(nn.Module):
    """Pixels to probabilities, as `Classifier.predict_step` in float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.network, self.task, self.temperature = model.network, model.task, model.temperature
        for name in ("mean", "std"):  # one value for each channel; the classifier's have the size of an image
            self.register_buffer(name, getattr(model, name)[:, :, :1, :1].clone())

    def forward(self, images: Tensor) -> Tensor:
        inputs = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.task.probabilities(self.network(inputs), self.temperature)


def write_onnx(model: Classifier, file: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the classifier, on the CPU, in float32. `metadata` are texts, or values that become JSON.

    Raises FaceattrError: an operation that cannot be exported, or a model above 2 GB.
    """
    height, width = model.spec.height, model.spec.width
    images = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.network.state_dict().values())
    if size > 0.99 * MOST_ONNX_BYTES:
        raise FaceattrError(
            f"The weights take {size / 1e9:.1f} GB; an ONNX file has at most {MOST_ONNX_BYTES / 1e9:.1f}."
        )
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                PixelsToProbabilities(model).eval(),
                (images,),
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
                **names,
            )
    except Exception as error:  # the exporter raises many kinds
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise FaceattrError(f"torch.onnx cannot export this network: {reason[:300]}") from error
    assert program is not None
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        part.ClearField("metadata_props")  # the exporter's stack traces, with paths of this machine
        part.ClearField("doc_string")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    file.write_bytes(proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx, onnxscript and ONNX Runtime's quantizer say about their own work."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def halve(file: Path, out: Path) -> None:
    """The model with its weights stored as fp16; it computes in float32 still, so that it runs as fast and on every CPU.

    Raises FaceattrError: a weight beyond fp16's range.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load(file)
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_HALVED:
            continue
        name = tensor.name
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            raise FaceattrError(f"export.half=true: the weight {name} is beyond what fp16 holds.")
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    out.write_bytes(proto.SerializeToString())


def quantize(file: Path, out: Path, batches: Iterable[np.ndarray]) -> None:
    """The model with int8 weights and arithmetic in its convolutions and matrix products (ONNX Runtime's static quantization, QDQ).

    The last layer and what follows it stay float32: in 8 bits, probabilities have steps of 1/255 and do not sum to 1.
    `batches` are images, uint8 [N, H, W, 3], on which the ranges of the values between layers are measured.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    prepared = out.with_name(f"{out.stem}.prepared.onnx")
    with _quiet():
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # 7 bits: on x86 without VNNI, sums of 8-bit products saturate
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_from_last_layer(prepared),
        )
    prepared.unlink()


def _from_last_layer(file: Path) -> list[str]:
    """Names of the nodes from the last matrix product, or convolution, to the probabilities. A graph has them in this order."""
    import onnx

    nodes = onnx.load(file).graph.node
    products = [index for index, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul", "Conv")]
    return [node.name for node in nodes[products[-1] :]]
