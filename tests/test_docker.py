"""The Dockerfile installs what serving an exported model needs, at the versions of pyproject.toml, and no more."""

import re
import subprocess
import sys
import tomllib

from programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = PROJECT["dependencies"]
MODULES = {"hydra-core": "hydra", "pillow": "PIL", "opencv-python-headless": "cv2", "python-multipart": "multipart"}
IMPORT = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import faceattr.commands.main, faceattr.commands.serve
"""


def test_docker_image_holds_what_serve_imports():
    installed = re.findall(r'"([\w-]+[<>][^"]*)"', (ROOT / "Dockerfile").read_text())
    assert len(installed) > 5 and set(installed) <= set(REQUIREMENTS)
    names = [re.match(r"[\w-]+", text)[0] for text in REQUIREMENTS if text not in installed]
    absent = [MODULES.get(name, name.replace("-", "_")) for name in names]
    assert {"torch", "pytorch_lightning"} <= set(absent)
    done = subprocess.run([sys.executable, "-c", IMPORT, *absent], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
