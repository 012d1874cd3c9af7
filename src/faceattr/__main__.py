"""python -m faceattr <command> …: as `faceattr <command> …`."""

from faceattr.commands.launch import main

main()
