"""Packages that pyproject.toml cannot name: those below src/, and conf/, which travels as faceattr/conf."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("src"), "faceattr.conf"],
    package_dir={"": "src", "faceattr.conf": "conf"},
    package_data={
        "faceattr": ["py.typed", "report/templates/*", "commands/serving/page/*"],
        "faceattr.conf": ["**/*.yaml"],
    },
)
