"""Finds the file that a name in a list or a table means: with or without its suffix, in any form in which Unicode writes it."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from faceattr.data.image_files import is_image, is_leftover
from faceattr.data.sources.conventions import file_names
from faceattr.errors import FaceattrError


class FileFinder:
    """Lists each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str, folders: Iterable[Path]) -> str | None:
        """The absolute path in the first of `folders` that has the file; None where none has. Raises FaceattrError: two fit."""
        for folder in folders:
            file = os.path.normpath(folder / Path(name).expanduser())
            if os.path.lexists(file) and not os.path.isdir(file):  # noqa: PTH112
                return file
            if match := self.fitting(file):
                return match
        return None

    def fitting(self, path: str) -> str | None:
        """The image at `path` in another form of Unicode, or with a suffix where `path` has none; None where there is none.

        Raises FaceattrError: two images with that name.
        """
        folder, name = os.path.split(path)
        matches = self._images(folder).get(unicodedata.normalize("NFC", name), [])
        if len(matches) > 1:
            listed = " or ".join(matches)
            raise FaceattrError(f"{name!r} may be {listed} in {folder or '.'}: give names with extension.")
        return os.path.join(folder, matches[0]) if matches else None  # noqa: PTH118

    def _images(self, folder: str) -> dict[str, list[str]]:
        """Images of a folder by their names, and by their names without suffix (unless that is a suffix again)."""
        if folder not in self._folders:
            by_name = self._folders[folder] = {}
            for name in sorted(file_names(Path(folder))):
                if is_image(name) and not is_leftover(name):
                    form = unicodedata.normalize("NFC", name)
                    stem = os.path.splitext(form)[0]  # noqa: PTH122
                    for key in [form] if is_image(stem) else [form, stem]:
                        by_name.setdefault(key, []).append(name)
        return self._folders[folder]
