from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from orchestrator.models.class_text import LearntContext, TextTower, class_sentences, zero_shot
from orchestrator.models.prompts import PromptScheme
from tests.tiny_clips import tiny_clip, tokenizer

NAMES = ("neutral", "very angry")
SAID = {
    "end": "a person who looks {}.",
    "middle": "a person {} who looks.",
    "front": "{} a person who looks.",
}


def embedded(clip: torch.nn.Module, sentences: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return clip.encode_text(tokenizer()(sentences), normalize=True)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize("position", SAID)
@pytest.mark.parametrize("custom_text", [True, False])
@pytest.mark.parametrize("class_specific", [True, False])
def test_a_context_that_starts_from_words_reads_as_the_sentence_written_out(
    position: str, custom_text: bool, class_specific: bool
) -> None:
    clip = tiny_clip(custom_text=custom_text)
    scheme = PromptScheme(context="a person who looks", class_position=position, class_specific=class_specific)  # type: ignore[arg-type]
    learnt = LearntContext(TextTower(clip), tokenizer(), scheme, NAMES)
    assert learnt.context.shape == ((2, 4, 16) if class_specific else (4, 16))
    torch.testing.assert_close(learnt(), embedded(clip, [SAID[position].format(name) for name in NAMES]))


def test_sentences_of_all_words_for_a_class_are_averaged_learnt_and_fixed_alike() -> None:
    clip = tiny_clip()
    scheme = PromptScheme(context="a", words={"worried": ("worried", "afraid")}, templates=("a {}.",))
    both = embedded(clip, ["a worried.", "a afraid.", "a sad."])
    expected = F.normalize(torch.stack([both[:2].mean(dim=0), both[2]]), dim=-1)
    torch.testing.assert_close(LearntContext(TextTower(clip), tokenizer(), scheme, ("worried", "sad"))(), expected)
    fixed = zero_shot(TextTower(clip), tokenizer(), class_sentences(scheme, ("worried", "sad")))
    torch.testing.assert_close(fixed, expected)


def test_descriptions_replace_the_templates() -> None:
    scheme = PromptScheme(descriptions=(("calm", "no feeling at all"), ("a frown",)))
    clip = tiny_clip()
    means = [embedded(clip, list(sentences)).mean(dim=0) for sentences in scheme.descriptions]
    found = zero_shot(TextTower(clip), tokenizer(), class_sentences(scheme, NAMES))
    torch.testing.assert_close(found, F.normalize(torch.stack(means), dim=-1))
    with pytest.raises(ValueError, match="2 classes have descriptions, but there are 3"):
        class_sentences(scheme, ("a", "b", "c"))


def test_contexts_of_classes_learn_apart() -> None:
    learnt = LearntContext(TextTower(tiny_clip()), tokenizer(), PromptScheme(context=3), NAMES)
    (gradient,) = torch.autograd.grad(learnt()[0].sum(), [learnt.context])
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_a_context_longer_than_the_tower_is_refused() -> None:
    with pytest.raises(ValueError, match="need 28 places; there are 24"):
        LearntContext(TextTower(tiny_clip()), tokenizer(), PromptScheme(context=24), ("sad",))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"templates": ("a face",)}, "templates need one"),
        ({"summary": "all"}, "summary must be"),
        ({"class_position": "back"}, "class_position must be"),
        ({"words": {"sad": ()}}, "for sad"),
        ({"frames": 0}, "frames"),
    ],
)
def test_a_wrong_scheme_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptScheme(**wrong)  # type: ignore[arg-type]
