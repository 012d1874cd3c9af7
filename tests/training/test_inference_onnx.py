"""The model of an exported folder: refused where it is not the exported one, or refers to other files."""

import os
import sys

import onnx
import pytest
from exports import assert_refused, copied, noise, signed

import faceattr
from faceattr.errors import FaceattrError
from faceattr.training.exported_folder import ONNX
from faceattr.training.inference_onnx import BLOCK, create_session


def test_explain_of_an_export_says_what_it_needs(exported):
    with pytest.raises(FaceattrError, match="Grad-CAM needs the run's checkpoint"):
        faceattr.load(exported[1]).explain(noise(1, 32, 32)[0])


def test_load_refuses_a_model_that_was_changed(exported, tmp_path):
    folder = copied(exported[1], tmp_path)
    content = bytearray((folder / ONNX).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ONNX).write_bytes(content)
    assert_refused(folder, "is not the file that config.json describes")
    (folder / ONNX).unlink()
    assert_refused(folder, "cannot be read: No such file")
    os.mkfifo(folder / ONNX)
    assert_refused(folder, "is no file")


@pytest.mark.parametrize(
    "key", [b"\n\x08", b"\x8a\x00\x08", b"\n\x88\x00", b"\x8a\x80\x80\x00\x88\x80\x00", b"\x8a\x80\x80\x80\x10\x08"]
)
@pytest.mark.parametrize("before", [0, BLOCK - 30, BLOCK - 13, BLOCK - 2])
def test_create_session_refuses_every_spelling_of_a_reference(tmp_path, key, before):
    """Of protobuf's two integers before the text: a tag and a length. Also where it lies in two blocks of the file."""
    (tmp_path / ONNX).write_bytes(bytes(before) + b"location " + key + b"location")
    with pytest.raises(FaceattrError, match="refers to other files"):
        create_session(tmp_path / ONNX, "here")


@pytest.mark.parametrize("location", ["secret.bin", "/etc/hostname", "../secret.bin", "*/_ORT_MEM_ADDR_/*"])
def test_load_refuses_a_model_that_refers_to_other_files(exported, tmp_path, location):
    folder = copied(exported[1], tmp_path)
    proto = onnx.load(folder / ONNX)
    tensor = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    signed(folder, proto.SerializeToString())
    assert_refused(folder, "refers to other files")


def test_load_refuses_what_is_no_model_or_another(exported, tmp_path):
    folder = copied(exported[1], tmp_path)
    signed(folder, b"no model")
    assert_refused(folder, "cannot run it")
    proto = onnx.load(exported[1] / ONNX)
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "others"
    signed(folder, proto.SerializeToString())
    assert_refused(folder, "does not fit")


def test_create_session_names_the_package_that_it_needs(tmp_path, monkeypatch):
    (tmp_path / ONNX).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FaceattrError, match="needs the package onnxruntime: pip install onnxruntime"):
        create_session(tmp_path / ONNX, "here")


def test_create_session_allows_the_text_location(exported, tmp_path):
    """As in the name of an attribute: only a tensor's reference is refused."""
    proto = onnx.load(exported[1] / ONNX)
    proto.metadata_props.add(key="classes", value='["location", "\\nlocation"]')
    (tmp_path / ONNX).write_bytes(proto.SerializeToString())
    create_session(tmp_path / ONNX, "here")
