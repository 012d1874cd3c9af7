"""`python -m faceattr <command> …`, and the program `faceattr <command> …`."""

import sys

try:
    from faceattr.commands.main import main
except ModuleNotFoundError as error:  # an installation for exported models only (docs/export.md)
    if (error.name or "faceattr").startswith("faceattr"):
        raise
    sys.exit(
        f"Error: the commands need the package {error.name}, which is not installed. faceattr.load works without it."
    )

if __name__ == "__main__":
    main()
