"""Packages that pyproject.toml cannot name: those below src/, and conf/, which travels as faceattr/conf.

An editable installation reads conf/ where it lies. With one folder, src/, it is a path for Python; with two it would be an import
hook, which comes after the current folder: beside the checkout, `import faceattr` would then find that.
"""

import sys

from setuptools import find_packages, setup

conf = {} if "editable_wheel" in sys.argv else {"faceattr.conf": "conf"}
setup(
    packages=[*find_packages("src"), *conf],
    package_dir={"": "src", **conf},
    package_data={
        "faceattr": ["py.typed", "report/templates/*", "commands/serving/page/*"],
        "faceattr.conf": ["**/*.yaml"],
    },
)
