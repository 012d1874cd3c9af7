"""`python -m faceattr <command> …`, and the program `faceattr <command> …`."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main()
