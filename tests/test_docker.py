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

sys.modules.update(dict.fromkeys(sys.argv[1:]))  # as if they were not installed
import faceattr.commands.main, faceattr.commands.serve
from faceattr.commands.config_from_checkpoint import stored_config
try:
    stored_config(".")  # as /model is where nothing was mounted
except faceattr.FaceattrError as error:
    print(error)
"""


def test_docker_image_holds_what_serve_imports(tmp_path):
    installed = re.findall(r'"([\w-]+[<>][^"]*)"', (ROOT / "Dockerfile").read_text())
    assert len(installed) > 5 and set(installed) <= set(REQUIREMENTS)
    names = [re.match(r"[\w-]+", text)[0] for text in REQUIREMENTS if text not in installed]
    absent = [MODULES.get(name, name.replace("-", "_")) for name in names]
    assert {"torch", "pytorch_lightning"} <= set(absent)
    command = [sys.executable, "-c", IMPORT, *absent]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a folder without config.json" in done.stdout and "Give the folder that `export.py` wrote" in done.stdout
