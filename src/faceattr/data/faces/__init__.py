"""Faces in photos: `detect` finds them in one image, `detection_cache` in many; `crop` cuts them out as `crop_recipe` says.

`table_faces` chooses one face for each image of a table, for training and evaluation; `detector_file` gets the detector.
"""
