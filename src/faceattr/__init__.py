"""faceattr: train and judge classifiers of face attributes."""

__version__ = "0.1.0"
