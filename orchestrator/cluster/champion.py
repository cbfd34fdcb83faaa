"""The champion of a finished run speaks about clips: a split of its corpus, or a folder of videos it has never seen.

A new video passes through the very decoding and encoders the model was trained with: their fingerprints are kept with the
champion, and other ones are refused.
"""

from __future__ import annotations

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m4v"}
