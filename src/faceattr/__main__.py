"""python -m faceattr <command> …: as `faceattr <command> …`."""

from faceattr.commands.main import main

main()
