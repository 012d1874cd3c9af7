"""Serve a model on a page and a JSON API: python serve.py ckpt=…/best.ckpt."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main("serve")
