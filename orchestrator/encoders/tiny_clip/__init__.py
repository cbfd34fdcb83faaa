"""The CLIP that ships with the package: open_clip configuration, weights, and `train.py`, the script that made them.

An ordinary open_clip model of 3 MB: `open_clip.create_model("local-dir:<this folder>")` loads it too. It has seen drawn faces
only, of people who are not in the toy corpus: enough to try every step without a download, useless on photographs.
"""
