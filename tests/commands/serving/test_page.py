"""The page in headless Chromium, narrow and wide: every way to give a picture, and what is shown of the answer."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from checkpoints import untrained
from PIL import Image
from programs import PATIENCE

pytest.importorskip("uvicorn", reason="serve is an extra")
import uvicorn
from serving import create, encoded, noise, scene

PAIR = encoded(scene(3, 8), "JPEG", quality=95)
EMPTY = encoded(Image.new("RGB", (80, 60), "teal"))


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Runs the application of a checkpoint, with overrides, in a thread; gives its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(ckpt: Path, *overrides: str) -> str:
        app = create(ckpt, tmp_path_factory.mktemp("run"), *overrides)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            thread.join(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """Chromium whose camera shows two people."""
    video = tmp_path_factory.mktemp("camera") / "two.y4m"
    planes = scene(3, 8).convert("YCbCr")
    luma, *chroma = (np.asarray(plane) for plane in planes.split())
    frame = b"FRAME\n" + luma.tobytes() + b"".join(plane[::2, ::2].tobytes() for plane in chroma)
    video.write_bytes(b"YUV4MPEG2 W320 H160 F10:1 Ip A1:1 C420\n" + 5 * frame)
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(*camera, f"--use-file-for-fake-video-capture={video}") as started:
        yield started


@pytest.fixture(scope="module")
def faces(serve, tmp_path_factory, shared) -> str:
    """The address of a model that answers for each face."""
    weights = shared("weights", "face_detection_yunet_2023mar.onnx")
    ckpt = untrained(tmp_path_factory.mktemp("align") / "best.ckpt", "faces=align")
    return serve(ckpt, f"faces.weights={weights}", "serve.max_bytes=200_000")


@pytest.fixture
def page(browser) -> Iterator[Callable[..., Any]]:
    """Opens an address; at the end nothing was said on the console and nothing was asked of another server."""
    context, noticed, expected = browser.new_context(), list[str](), list[str]()
    context.set_default_timeout(1000 * PATIENCE)

    def start(address: str, width: int = 1280, *expecting: str) -> Any:
        shown = context.new_page()
        shown.set_viewport_size({"width": width, "height": 800})
        expected.extend(expecting)
        shown.on("console", lambda message: noticed.append(f"{message.type}: {message.text}"))
        shown.on("pageerror", lambda error: noticed.append(str(error)))
        own = (address, f"blob:{address}", "data:")
        shown.on("request", lambda request: request.url.startswith(own) or noticed.append(request.url))
        shown.goto(address)
        shown.locator("#notice", has_text="annotators perceived").wait_for()
        return shown

    yield start
    context.close()
    assert [re.sub(r".*status of (\d+).*", r"\1", message) for message in noticed] == expected


def give(shown: Any, image: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
    shown.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": image})


def transfer(shown: Any, image: bytes) -> Any:
    """What a browser hands over when something is dropped or pasted."""
    make = """text => {
        const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
        data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
        return data;
    }"""
    return shown.evaluate_handle(make, base64.b64encode(image).decode())


def choose(shown: Any) -> None:
    give(shown, PAIR)


def drop(shown: Any) -> None:
    shown.dispatch_event("#drop", "drop", {"dataTransfer": transfer(shown, PAIR)})


def paste(shown: Any) -> None:
    event = "data => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))"
    shown.evaluate(event, transfer(shown, PAIR))


def photograph(shown: Any) -> None:
    shown.get_by_role("button", name="Use the camera").click()
    shown.get_by_role("button", name="Take the picture").click()


@pytest.mark.parametrize(
    ("how", "width"),
    [
        (choose, 375),
        pytest.param(choose, 1280, marks=pytest.mark.slow),
        (drop, 1280),
        pytest.param(paste, 1280, marks=pytest.mark.slow),
        pytest.param(photograph, 375, marks=pytest.mark.slow),
    ],
)
def test_page_draws_the_answers_over_a_picture_however_it_is_given(faces, page, how, width):
    shown = page(faces, width)
    how(shown)
    shown.locator("#status", has_text="2 faces").wait_for()
    boxes, entries = shown.locator(".box"), shown.locator("#faces > li")
    assert boxes.count() == entries.count() == 2
    at_once = "all => all.map(one => one.getBoundingClientRect().toJSON())"  # the page may still scroll to the answers
    picture, *placed = shown.locator("#picture, .box").evaluate_all(at_once)
    middle = picture["x"] + picture["width"] / 2
    assert picture["x"] <= placed[0]["x"] < placed[0]["x"] + placed[0]["width"] <= middle + 9
    assert middle < placed[1]["x"] + 9 and placed[1]["x"] + placed[1]["width"] <= picture["x"] + picture["width"] + 9
    assert all(picture["y"] <= box["y"] and box["height"] > 0.2 * picture["height"] for box in placed)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


def test_page_shows_probabilities_as_bars_and_marks_uncertain_answers(faces, page):
    shown = page(faces)
    give(shown, PAIR)
    entry = shown.locator("#faces > li").first
    assert re.search(r"Face 1: uncertain, perhaps (female|male), 5\d\.\d%", entry.locator("h3").inner_text())
    values = [float(text.rstrip("%")) for text in entry.locator(".value").all_inner_texts()]
    tracks = entry.locator(".track").evaluate_all("all => all.map(one => one.firstChild.offsetWidth / one.clientWidth)")
    assert sum(values) == pytest.approx(100, abs=0.2) and values[0] > values[1]
    assert tracks == pytest.approx([value / 100 for value in values], abs=0.02)
    assert "doubtful" in shown.locator(".box").first.get_attribute("class")
    assert "no class has a probability of 60% or more" in shown.locator("#legend").inner_text()


def test_page_is_used_by_keyboard_and_named_for_screen_readers(faces, page):
    shown = page(faces)
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.id") == "file"
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.id") == "camera"
    give(shown, PAIR)
    shown.get_by_role("button", name=re.compile("^Face 2: uncertain")).focus()
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.querySelector('h3').textContent").startswith("Face 2")
    assert shown.get_by_role("status").inner_text().startswith("2 faces")
    assert shown.get_by_role("listitem").count() == 6 and shown.get_by_role("img").get_attribute("alt")
    nameless = "button:not([aria-label]):empty, input:not([aria-label]), img:not([alt]), select:not(label select)"
    assert shown.locator(nameless).count() == 0


def test_page_shows_grad_cam_on_request(faces, page):
    shown = page(faces)
    give(shown, PAIR)
    entry = shown.locator("#faces > li").nth(1)
    entry.get_by_label("Evidence for").select_option("male")
    entry.get_by_role("button", name="Show").click()
    picture = entry.get_by_role("img", name="Face 2 as the network gets it, with its evidence for male")
    picture.wait_for()
    assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 32


def test_page_says_that_there_is_no_face(faces, page):
    shown = page(faces, 375)
    give(shown, EMPTY, kind="image/png")
    shown.locator("#status", has_text="No face was found in this picture.").wait_for()
    assert shown.locator(".box").count() == 0 and shown.locator("#picture").is_visible()


def test_page_says_what_is_wrong_and_goes_on(faces, page):
    shown = page(faces, 375, "415")
    give(shown, b"hello")
    shown.get_by_role("alert").filter(has_text="Not an image file").wait_for()
    give(shown, encoded(noise(500, 200)), "big.png")
    shown.get_by_role("alert").filter(has_text="The picture has 0.3 MB; this server takes 0.2 MB at most.").wait_for()
    give(shown, b"hello", "list.txt", "text/plain")
    shown.get_by_role("alert").filter(has_text="What you chose is not a picture.").wait_for()
    assert not shown.locator("#result").is_visible()
    give(shown, PAIR)
    shown.locator("#status", has_text="2 faces").wait_for()
    assert not shown.get_by_role("alert").is_visible()


def test_page_of_attributes_and_whole_pictures(serve, page, tmp_path_factory):
    classes = ("Male", "Smiling", "Young")
    ckpt = untrained(tmp_path_factory.mktemp("many") / "best.ckpt", classes=classes, multilabel=True)
    shown = page(serve(ckpt))
    assert "the whole picture, taken for one face: Male, Smiling, Young." in shown.locator("#classes").inner_text()
    give(shown, PAIR)
    entry = shown.locator("#faces > li")
    entry.wait_for()
    assert entry.locator(".name").all_inner_texts() == list(classes) and shown.locator(".box").count() == 0
    assert "uncertain:" in entry.locator("h3").inner_text()


def test_page_shows_names_as_text(serve, page, tmp_path_factory):
    nasty = ("<img src=x onerror=alert(1)>", "b" * 60)
    ckpt = untrained(tmp_path_factory.mktemp("nasty") / "best.ckpt", classes=nasty)
    shown = page(serve(ckpt), 375)
    give(shown, PAIR)
    shown.locator("#faces > li").wait_for()
    assert set(shown.locator(".bars .name").all_inner_texts()) == set(nasty)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 375
