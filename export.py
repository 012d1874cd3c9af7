"""Export a checkpoint: python export.py ckpt=…/best.ckpt."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main("export")
