"""Work on many images in threads and in processes: the same results, in order; nothing is left when a process ends."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from faceattr.data import parallel
from faceattr.data.decode import InputSpec, read_many
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detection_cache import find_all
from faceattr.data.parallel import in_order, processes_pay, run_tasks
from faceattr.errors import FaceattrError

SPEC = InputSpec(12, 10, "bilinear", "unit")


@pytest.fixture(params=["threads", "processes"])
def how(request, monkeypatch) -> str:
    """Of five workers, however few images there are."""
    monkeypatch.setattr(parallel, "PROCESSES_FROM", 0 if request.param == "processes" else 10**9)
    return request.param


@pytest.fixture
def paths(tmp_path) -> list[str]:
    """200 pictures, of which number 70 is cut."""
    files = [tmp_path / f"{number}.jpg" for number in range(200)]
    for number, file in enumerate(files):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    files[70].write_bytes(files[70].read_bytes()[:300])
    return [str(file) for file in files]


def test_processes_pay_for_many_images_and_workers():
    assert processes_pay(2000, 5)
    assert not processes_pay(1999, 5) and not processes_pay(2000, 4)


def process_of(_: object) -> int:
    return os.getpid()


def test_where_tasks_run(how):
    """Each in a process of its own, or all in this one."""
    processes = set(run_tasks((partial(process_of, n) for n in range(12)), workers=2, processes=how == "processes"))
    assert (os.getpid() in processes) == (how == "threads") and len(processes) <= 2


def test_read_many_gives_every_row_its_own_picture(how, paths):
    decoded = np.zeros((len(paths), 12, 10, 3), np.uint8)
    reasons = read_many(paths, SPEC, decoded, workers=5, label="")
    assert list(reasons) == [70] and "truncated" in reasons[70].lower()
    assert not decoded[70].any()
    for row in (0, 63, 64, 199):
        with Image.open(paths[row]) as image:
            assert np.array_equal(decoded[row], np.asarray(image.resize((10, 12), Image.Resampling.BILINEAR)))
    assert read_many(paths, SPEC, None, workers=5, label="") == reasons


def test_faces_are_found_alike(how, shared, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / how))
    weights = str(shared("weights", "face_detection_yunet_2023mar.onnx"))
    portraits = [str(file) for file in sorted(shared("data", "small_csv", "images").iterdir())[:40]]
    detections = find_all(portraits, FaceRecipe("align"), weights=weights, workers=5)
    assert detections.owner.tolist() == list(range(40)) and not detections.bad
    assert (
        detections.values[35].tolist()
        == find_all(portraits[35:36], FaceRecipe("align"), weights=weights, workers=1).values[0].tolist()
    )


def fail(number: int) -> int:
    if number == 5:
        raise FaceattrError("number 5")
    return number


def test_an_error_of_a_task_is_raised(how):
    results = run_tasks((partial(fail, n) for n in range(50)), workers=2, processes=how == "processes")
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(FaceattrError, match="number 5"):
        next(results)


def test_a_killed_process_is_an_error():
    tasks = [partial(os.kill, os.getpid(), 0), partial(time.sleep, 0), partial(kill_oneself, signal.SIGKILL)]
    with pytest.raises(FaceattrError, match="One of 2 processes"):
        list(run_tasks(tasks, workers=2))


def kill_oneself(number: int) -> None:
    os.kill(os.getpid(), number)


MAIN = """
import os, time
from functools import partial
from faceattr.data import parallel
tasks = [partial(os.getpid), partial(os.getpid), *[partial(time.sleep, 600)] * 2]
for number, result in enumerate(parallel.run_tasks(tasks, workers=2)):
    print(result, flush=True)
"""


def test_processes_end_with_the_one_that_started_them():
    """It is killed, and cannot end them itself. The script is not run again by them, though it has no guard."""
    with subprocess.Popen([sys.executable, "-c", MAIN], stdout=subprocess.PIPE, text=True) as main:
        workers = {int(main.stdout.readline()) for _ in range(2)}
        main.kill()
        main.wait()
    for worker in workers:
        while alive(worker):
            time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether it runs: a zombie that nobody waited for does not."""
    try:
        with open(f"/proc/{process}/stat") as status:  # noqa: PTH123
            return status.read().split()[2] not in ("Z", "X")
    except OSError:
        return False


def test_in_order_begins_no_more_tasks_than_asked():
    begun = []
    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, (partial(lambda n: begun.append(n) or n, n) for n in range(50)), ahead=4)
        assert next(results) == 0
        assert len(begun) <= 4
        assert list(results) == list(range(1, 50))
