"""Faces in photos: `detect` finds them, `crop` cuts them out, `recipe` says how, `detector_file` gets the detector."""
