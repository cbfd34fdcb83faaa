from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

import orchestrator.encoders
from tests.encoders.conftest import MakeClip


def test_the_example_of_ones_own_encoder_works(make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = textwrap.dedent((orchestrator.encoders.__doc__ or "").split("by `_target_` in a config:\n")[1])
    (tmp_path / "brightness.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        recipe = __import__("brightness").Brightness()
    finally:
        sys.modules.pop("brightness", None)
    encoded = recipe.load().encode([make_clip("a"), make_clip("blind", frames=0)])
    assert encoded.values.shape == (2, 6)
    assert encoded.present.tolist() == [True, False]
    assert len(example.strip().splitlines()) <= 36
