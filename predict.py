"""Predict images: python predict.py ckpt=…/best.ckpt input=photo.jpg."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main("predict")
