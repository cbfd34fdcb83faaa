from __future__ import annotations

import pickle
import subprocess
import sys
import typing
from dataclasses import fields

import pytest

from orchestrator.encoders.audio import LogMelStatistics, SpeechModel
from orchestrator.encoders.clip import OpenClip
from orchestrator.encoders.hints import HintSettings
from orchestrator.encoders.text import HashedNgrams, LanguageModel

RECIPES = [OpenClip(), SpeechModel("a/b", layers=[1, 2]), LogMelStatistics(), LanguageModel("a/b", layers=[-1]), HashedNgrams()]  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_recipe_travels_and_its_settings_can_be_checked(recipe: object) -> None:
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert hash(again) == hash(recipe)  # a list from a config has become a tuple
    assert set(typing.get_type_hints(type(recipe))) == {field.name for field in fields(recipe)}  # type: ignore[arg-type]


def test_recipes_are_cheap_to_import() -> None:
    modules = ", ".join(f"orchestrator.encoders.{name}" for name in ("audio", "clip", "text", "hints"))
    heavy = "{'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; sys.exit(bool({heavy}))"], check=True)


def test_hint_settings_can_be_checked_and_hold_no_key() -> None:
    assert not any("key" in name for name in typing.get_type_hints(HintSettings))
