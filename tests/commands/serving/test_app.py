"""The JSON API in this process: answers, errors, limits and headers. With networks that were never trained."""

import asyncio
import io
import re
import struct
import tempfile
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import untrained
from PIL import Image

import faceattr
from faceattr.errors import FaceattrError

pytest.importorskip("starlette", reason="serve is an extra")
import httpx
from serving import LOCAL, client, create, encoded, noise, scene

from faceattr.commands.serving.app import create_app
from faceattr.commands.serving.classify_upload import PhotoClassifier
from faceattr.commands.serving.http_errors import Problem
from faceattr.commands.serving.uploads import upright_size
from faceattr.config.schema import ServeOptions
from faceattr.data.faces.crop_recipe import WHOLE_IMAGE
from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import ONNX, WEIGHTS, describe_export, write_config
from faceattr.training.onnx_export import write_onnx
from faceattr.training.safetensors_model import write_weights

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("whole") / "best.ckpt")


@pytest.fixture(scope="module")
def whole(ckpt, tmp_path_factory):
    """A client of a model that takes whole images; small limits."""
    limits = ("serve.max_bytes=100_000", "serve.max_pixels=200_000")
    with client(create(ckpt, tmp_path_factory.mktemp("run"), *limits), raise_server_exceptions=False) as started:
        yield started


@pytest.fixture(scope="module")
def align(ckpt, tmp_path_factory, shared):
    """A client of the same model, with faces found in the pictures."""
    weights = shared("weights", "face_detection_yunet_2023mar.onnx")
    given = ("faces=align", f"faces.weights={weights}", "serve.max_faces=2")
    with client(create(ckpt, tmp_path_factory.mktemp("run"), *given)) as started:
        yield started


def form(image: bytes, **fields: str) -> dict[str, Any]:
    return {"files": {"image": ("C:\\fakepath\\me.png", image, "image/png")}, "data": fields}


def test_predict_answers_for_a_form_and_for_raw_bytes_as_the_predictor_does(ckpt, whole):
    image = encoded(noise(60, 40))
    expected = faceattr.load(ckpt).predict(image).iloc[0]
    for sent in (form(image), {"content": image}):
        answer = whole.post("/predict", **sent).json()
        assert list(answer) == ["faces", "image", "model", "milliseconds"]
        assert answer["model"] == "test" and answer["image"] == {"width": 60, "height": 40}
        (face,) = answer["faces"]
        assert face["box"] == {"x": 0, "y": 0, "width": 60, "height": 40} and face["points"] is face["score"] is None
        assert face["predicted"] == expected["predicted"] and face["reason"] is None
        for name, probability in face["probabilities"].items():
            assert probability == pytest.approx(expected[f"probability_{name}"], abs=1e-6)


def test_predict_gives_the_size_of_the_upright_picture(whole):
    turned = Image.Exif()
    turned[0x0112] = 6
    answer = whole.post("/predict", content=encoded(noise(60, 40), "JPEG", exif=turned)).json()
    assert answer["image"] == {"width": 40, "height": 60}


def test_predict_finds_faces_and_an_empty_list_without_one(align):
    answer = align.post("/predict", **form(encoded(scene(3, 8)))).json()
    first, second = answer["faces"]
    assert first["box"]["x"] < 160 < second["box"]["x"] and first["score"] > 0.6
    assert list(first["points"]) == ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    none = align.post("/predict", content=encoded(Image.new("RGB", (80, 60), "teal")))
    assert none.status_code == 200 and none.json()["faces"] == []


def test_predict_answers_for_the_largest_faces_and_says_so_of_the_others(align):
    picture = scene(3, 8, 5)
    picture.paste(picture.crop((320, 0, 480, 160)).resize((90, 90)), (320, 0))
    faces = align.post("/predict", content=encoded(picture)).json()["faces"]
    unanswered = [face for face in faces if face["predicted"] is None]
    assert len(faces) > len(unanswered) == len(faces) - 2
    assert f"{len(faces)} faces in the picture; at most 2 get an answer" in unanswered[0]["reason"]
    assert unanswered[0]["probabilities"] is None and unanswered[0]["box"]["width"] > 0


BLANK = encoded(Image.new("RGB", (600, 400)))


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        ({"content": b"hello"}, 415, "Not an image file"),
        ({"content": b"%PDF-1.7 .."}, 415, "Not an image file: it is a PDF document."),
        ({"content": b""}, 400, "No image"),
        ({"data": {"image": "text"}, "files": {"other": b"x"}}, 400, "No image"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "form cannot be read"),
        ({"content": bytes(200_000)}, 413, "more than 100,000 bytes"),
        (form(bytes(150_000)), 413, "more than 100,000 bytes"),
        ({"content": iter([bytes(90_000)] * 3)}, 413, "more than 100,000 bytes"),
        ({"content": BLANK}, 413, r"600×400 pixels; the most here are 200,000"),
        ({"content": encoded(noise(60, 40))[:3000]}, 422, "The image cannot be read"),
        ({"content": encoded(noise(60, 40), "JPEG")[:1500] + b"\xff\xd9"}, 422, "cannot be read: image file is trunc"),
    ],
)
def test_predict_says_what_is_wrong_as_problem_json(whole, sent, status, detail):
    answer = whole.post("/predict", **sent)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), problem
    assert list(problem) == ["title", "status", "detail"] and problem["status"] == status
    assert re.search(detail, problem["detail"]), problem
    assert not re.search(r"Traceback|0x[0-9a-f]{6}|/tmp|site-packages", answer.text)


def test_upright_size_decodes_nothing():
    """PNG has its orientation anywhere: Pillow decodes to find it, 4 GB of this one."""
    whole = encoded(noise(60, 40))
    assert upright_size(whole.replace(b"IDAT", b"IDAT" + bytes(9)), 10_000) == (60, 40)
    huge = whole[:16] + struct.pack(">II", 65_535, 65_535)
    huge += whole[24:29] + struct.pack(">I", zlib.crc32(huge[12:] + whole[24:29])) + whole[33:]
    with pytest.raises(Problem, match="65535×65535 pixels"):
        upright_size(huge, 10_000)


def test_one_bad_image_of_a_batch_does_not_disturb_the_others(ckpt):
    classifier = PhotoClassifier(faceattr.load(ckpt), WHOLE_IMAGE, None, 10_000, 10)
    good = encoded(noise(60, 40))
    answers = classifier.classify([b"x", good, encoded(noise(60, 40))[:3000], encoded(noise(200, 200)), good])
    assert [getattr(answer, "status", 200) for answer in answers] == [415, 200, 422, 413, 200]
    assert answers[1] == answers[4]


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [("GET", "/predict", 405, "POST"), ("POST", "/model", 405, "HEAD, GET"), ("GET", "/nothing", 404, None)],
)
def test_wrong_methods_and_addresses_are_problems(whole, method, path, status, allowed):
    answer = whole.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.headers.get("allow") in (allowed, "GET, HEAD" if allowed == "HEAD, GET" else allowed)


@pytest.mark.parametrize("path", ["/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/static/"])
def test_static_gives_no_other_files(whole, path):
    assert whole.get(path).status_code == 404


def test_explain_gives_the_picture_of_the_predictor(ckpt, align):
    image = encoded(scene(3, 8))
    model, shown = faceattr.load(ckpt), {}
    for face in ("0", "1"):
        answer = align.post("/explain", **form(image, face=face, label="male"))
        assert answer.headers["content-type"] == "image/png"
        shown[face] = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert np.array_equal(shown[face], model.explain(image, "male", face=int(face), faces="align"))
    assert not np.array_equal(shown["0"], shown["1"])
    for query, status in (("label=child", 422), ("face=7", 422), ("face=-1", 400), ("face=1e9", 400)):
        assert align.post(f"/explain?{query}", content=image).status_code == status


def test_model_says_what_it_is_and_what_is_taken(whole, align):
    about = whole.get("/model").json()
    assert about["classes"] == ["female", "male"] and about["input"] == {"height": 32, "width": 32, "resize": "stretch"}
    assert about["faces"]["mode"] == "none" and align.get("/model").json()["faces"]["mode"] == "align"
    assert about["limits"] == {"max_bytes": 100_000, "max_pixels": 200_000, "max_faces": 50, "timeout": 30}
    assert (
        about["explains"] and "nothing is known here" in about["summary"] and "annotators perceived" in about["notice"]
    )
    assert whole.get("/health").json() == {"status": "ok", "under_way": 0, "queue": 64}


def test_an_exported_model_is_served_without_grad_cam(ckpt, whole, tmp_path):
    pytest.importorskip("onnxruntime")
    model, description = checkpoint_format.load(ckpt)
    about = describe_export(model, description, "float32")
    out = tmp_path / "exported"
    out.mkdir()
    write_onnx(model, out / ONNX, {"faceattr": about})
    write_config(out, about, write_weights(model, out / WEIGHTS, half=False), (ONNX, WEIGHTS))
    (out / "README.md").write_text("Right on 90.0%.", encoding="utf-8")
    image = encoded(noise(60, 40))
    with client(create(out, tmp_path / "run")) as app:
        (face,), (expected,) = (one.post("/predict", content=image).json()["faces"] for one in (app, whole))
        assert face["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
        assert app.post("/explain", content=image).status_code == 501
        facts = app.get("/model").json()
    assert (
        facts["card"] == "Right on 90.0%." and facts["summary"].startswith("Right on 90.0%.") and not facts["explains"]
    )


def test_openapi_describes_what_is_answered(whole, align):
    jsonschema = pytest.importorskip("jsonschema")
    document = whole.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/explain", "/model", "/health"}
    for app, image in ((whole, noise(60, 40)), (align, scene(3, 8)), (align, noise(20, 20))):
        answer = app.post("/predict", content=encoded(image)).json()
        jsonschema.validate(answer, {"$ref": "#/components/schemas/Answer", "components": document["components"]})
    for address, name in (("/model", "Model"), ("/health", "Health")):
        answer, schema = align.get(address).json(), document["components"]["schemas"][name]
        jsonschema.validate(answer, schema)
        assert set(answer) == set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        schema = {"$ref": "#/components/schemas/Answer", "components": document["components"]}
        jsonschema.validate({"faces": [{}], "image": {}, "model": "", "milliseconds": 1}, schema)


def test_attributes_are_a_list(tmp_path):
    ckpt = untrained(tmp_path / "best.ckpt", classes=("Male", "Smiling", "Young"), multilabel=True)
    with client(create(ckpt, tmp_path / "run")) as app:
        (face,) = app.post("/predict", content=encoded(noise(40, 40))).json()["faces"]
    assert face["predicted"] == [name for name, value in face["probabilities"].items() if value > 0.5]
    with pytest.raises(FaceattrError, match=r"abstain=0\.9: attributes are not one answer"):
        create(ckpt, tmp_path / "run", "abstain=0.9")


def test_abstain_makes_answers_uncertain(ckpt, tmp_path):
    with client(create(ckpt, tmp_path / "run", "abstain=0.99")) as app:
        (face,) = app.post("/predict", content=encoded(noise(40, 40))).json()["faces"]
    assert face["predicted"] == "uncertain" and max(face["probabilities"].values()) < 0.99


def test_predict_writes_no_file(ckpt, tmp_path, monkeypatch):
    """Starlette by itself writes a file of more than 1 MB into a temporary folder: here there is none."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    image = encoded(noise(900, 700))
    assert len(image) > 2**20
    with client(create(ckpt, tmp_path / "run")) as app:
        assert app.post("/predict", **form(image)).status_code == 200
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


class Failing:
    """A model that fails, or one that waits and notes how many images it gets."""

    def __init__(self, model: Any = None) -> None:
        self.model, self.free, self.batches = model, threading.Event(), list[int]()
        self.metadata = {"name": "test", "classes": ["female", "male"], "multilabel": False, "explains": True}

    def predict(self, images: list[bytes], **options: Any) -> Any:
        if self.model is None:
            raise RuntimeError("/secret/place")
        self.batches.append(len(images))
        self.free.wait()
        return self.model.predict(images, **options)


def app_of(model: Any, **limits: Any) -> Any:
    return create_app(
        PhotoClassifier(model, WHOLE_IMAGE, None, 10**6, 10), ServeOptions(**limits), "127.0.0.1", dict(model.metadata)
    )


def test_a_mistake_of_ours_shows_nothing_of_it_and_has_the_headers(whole):
    with client(app_of(Failing()), raise_server_exceptions=False) as app:
        answers = [app.post("/predict", content=encoded(noise(9, 9)))]
    assert (
        answers[0].status_code == 500
        and "secret" not in answers[0].text
        and answers[0].headers["content-type"] == PROBLEM
    )
    answers += [whole.get(path) for path in ("/", "/model", "/static/page.js", "/nothing")]
    answers.append(whole.get("/", headers={"host": "evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and "server" not in answer.headers
        assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["x-frame-options"] == "DENY"


def test_requests_that_wait_are_answered_together_and_further_ones_refused(ckpt):
    """A first one is under way and two wait; the fourth gets 503. Then all three are answered, in two batches."""
    model = Failing(faceattr.load(ckpt))
    app = app_of(model, queue=3)
    image = encoded(noise(30, 30))

    async def session() -> tuple[list[httpx.Response], httpx.Response]:
        async with (
            app._app.router.lifespan_context(app._app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as http,
        ):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(http.post("/predict", content=image))]
                while not model.batches:
                    await asyncio.sleep(0.01)
                tasks += [group.create_task(http.post("/predict", content=image)) for _ in range(2)]
                while (await http.get("/health")).json()["under_way"] < 3:
                    await asyncio.sleep(0.01)
                refused = await http.post("/predict", content=image)
                model.free.set()
            return [task.result() for task in tasks], refused

    answers, refused = asyncio.run(session())
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200] * 3 and model.batches == [1, 2]


def test_requests_that_take_too_long_are_ended(ckpt):
    """A body that does not come: 408; an answer that does not: 503. Nothing stays behind."""
    model = Failing(faceattr.load(ckpt))
    app = app_of(model, timeout=1)

    async def endless():
        yield b"x"
        await asyncio.Event().wait()

    async def session() -> list[httpx.Response]:
        async with (
            app._app.router.lifespan_context(app._app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as http,
        ):
            sent = (endless(), encoded(noise(9, 9)))
            answers = await asyncio.gather(*(http.post("/predict", content=content) for content in sent))
            model.free.set()
            return [*answers, await http.get("/health")]

    slow, unanswered, health = asyncio.run(session())
    assert slow.status_code == 408 and "1 seconds" in slow.json()["detail"]
    assert unanswered.status_code == 503 and "retry-after" in unanswered.headers
    assert health.json()["under_way"] == 0


def test_the_page_needs_nothing_from_elsewhere_and_has_no_inline_code(whole):
    page = whole.get("/").text
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert links and all(link.startswith(("/static/", "data:", "/openapi.json")) for link in links)
    assert not re.search(r"<style|<script>|style=|\son\w+=", page)
    for name in ("style.css", "page.js", "camera.js", "faces.js"):
        assert not re.search(r"https?://", whole.get(f"/static/{name}").text)
