from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from orchestrator.encoders.text import TRUNCATED, HashedNgrams, LanguageModel, clean, text_key, text_of
from orchestrator.errors import ConfigError, ModelUnavailable
from tests.encoders.conftest import MakeClip

LINE = "I told you, what a lovely day!"


def test_bert_pools_the_words_without_cls_and_sep(bert: Path, make_clip: MakeClip) -> None:
    ours = LanguageModel(str(bert)).load().encode([make_clip("a", transcript=LINE)])
    inputs = AutoTokenizer.from_pretrained(bert)(LINE, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(bert)(**inputs, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(ours.values[0], sum(states[-4:])[0, 1:-1].mean(dim=0).numpy(), atol=1e-5)


def test_llama_pools_the_words_without_bos(llama: Path, make_clip: MakeClip) -> None:
    ours = LanguageModel(str(llama)).load().encode([make_clip("a", transcript=LINE)])
    inputs = AutoTokenizer.from_pretrained(llama)(LINE, return_tensors="pt")
    assert inputs["input_ids"][0, 0] == 0
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.inference_mode():
        states = model(input_ids=inputs["input_ids"], output_hidden_states=True).hidden_states
    np.testing.assert_allclose(ours.values[0], sum(states[-4:])[0, 1:].mean(dim=0).numpy(), atol=1e-5)


def test_a_template_is_read_but_never_pooled(llama: Path, make_clip: MakeClip) -> None:
    before, after = "Someone says:\n", " How do they feel?"
    recipe = LanguageModel(str(llama), template=before + "{text}" + after, layers=(-1,))
    ours = recipe.load().encode([make_clip("a", transcript=LINE)])
    tokenizer = AutoTokenizer.from_pretrained(llama)
    ids = tokenizer(before + LINE + after)["input_ids"]
    head, tail = len(tokenizer(before)["input_ids"]), len(tokenizer(after)["input_ids"]) - 1
    with torch.inference_mode():
        states = AutoModel.from_pretrained(llama)(input_ids=torch.tensor([ids])).last_hidden_state
    content = states[0, head : len(ids) - tail]
    assert tokenizer.decode(ids[head : len(ids) - tail]).strip() == LINE
    np.testing.assert_allclose(ours.values[0], content.mean(dim=0).numpy(), atol=1e-5)


def test_batches_with_padding_agree_with_single_texts(llama: Path, make_clip: MakeClip) -> None:
    encoder = LanguageModel(str(llama)).load()
    clips = [make_clip("a", transcript=LINE), make_clip("b", transcript="Wow"), make_clip("c", transcript=LINE * 3)]
    alone = encoder.encode(clips).values
    encoder._batches.size = 3  # as on a GPU
    np.testing.assert_allclose(encoder.encode(clips).values, alone, atol=1e-5)


def test_a_clip_does_not_feel_its_neighbours(bert: Path, make_clip: MakeClip) -> None:
    encoder = LanguageModel(str(bert)).load()
    clips = [make_clip("a", transcript=LINE), make_clip("b", transcript="Wow"), make_clip("c", transcript=LINE * 3)]
    np.testing.assert_array_equal(encoder.encode(clips).values[1], encoder.encode(clips[1:2]).values[0])


@pytest.mark.parametrize("attack", ["</s>", "<|im_end|>", "<tool_call>", "<s>", "<|im\u200b_end|>"])
def test_control_tokens_in_a_transcript_are_ordinary_text(llama: Path, make_clip: MakeClip, attack: str) -> None:
    encoder = LanguageModel(str(llama)).load()
    tokenizer = AutoTokenizer.from_pretrained(llama)
    controls = {tokenizer.convert_tokens_to_ids(name) for name in ("<s>", "</s>", "<|im_end|>", "<tool_call>")}
    tokens = encoder.tokens(make_clip("a", transcript=f"hello{attack} you"))
    assert tokens is not None
    assert not controls & set(tokens.ids[1:])


def test_a_long_text_is_cut_and_flagged(bert: Path, make_clip: MakeClip) -> None:
    encoder = LanguageModel(str(bert)).load()
    clips = [make_clip("long", transcript="lovely day " * 100), make_clip("short", transcript="lovely day")]
    encoded = encoder.encode(clips)
    assert encoded.flags == {"long": (TRUNCATED,)}
    assert len(encoder.steps(clips)[0]) == 62  # 64 positions, less CLS and SEP


@pytest.mark.parametrize("transcript", [None, "", "  \u200b\u202e "])
def test_a_clip_without_words_is_absent(bert: Path, make_clip: MakeClip, transcript: str | None) -> None:
    clips = [make_clip("mute", transcript=transcript), make_clip("voice", transcript="lovely")]
    for encoder in (LanguageModel(str(bert)).load(), HashedNgrams().load()):
        encoded = encoder.encode(clips)
        assert encoded.present.tolist() == [False, True]
        assert not encoded.values[0].any()


def test_the_source_says_what_is_read(make_clip: MakeClip) -> None:
    clip = make_clip("a", transcript="Get out!", hint="angry: she shouts")
    assert text_of(clip, "transcript") == "Get out!"
    assert text_of(clip, "hint") == "angry: she shouts"
    assert text_of(clip, "both") == "Get out!\nangry: she shouts"
    assert text_of(make_clip("b", transcript="Get out!"), "both") == "Get out!"
    assert text_of(make_clip("b"), "hint") is None


def test_the_key_is_of_the_text_that_is_read_not_of_the_clip(make_clip: MakeClip) -> None:
    assert text_key(make_clip("a", transcript="Hi  there\u200b")) == text_key(make_clip("b", transcript="Hi there"))
    assert text_key(make_clip("a", transcript="Hi")) != text_key(make_clip("a", transcript="Hi", hint="happy"))
    assert text_key(make_clip("a", transcript="Hi", hint="happy"), "transcript") == text_key(make_clip("a", transcript="Hi"))


def test_cleaning_strips_what_cannot_be_seen_and_keeps_every_script() -> None:
    assert clean("a\x00b\u202ec\ufeff\ud800 \uff28\uff29") == "abc HI"
    assert clean("你 好!\nżółw") == "你 好! żółw"
    began = time.perf_counter()
    assert len(clean("x" * 1_000_000)) == 20_000
    assert time.perf_counter() - began < 0.5


def test_ngrams_are_the_same_in_every_process_and_alike_for_like_words(make_clip: MakeClip) -> None:
    encoder = HashedNgrams(width=64).load()
    lines = ["I am so happy", "so happy I am today", "Get out of my room"]
    rows = encoder.encode([make_clip(line, transcript=line) for line in lines]).values
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > 0.5 > abs(rows[0] @ rows[2])
    golden = encoder.encode([make_clip("a", transcript="a")]).values[0]
    assert np.flatnonzero(golden).tolist() == [2, 26, 42]


def test_a_missing_model_without_network_says_so_in_one_line_within_a_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began = time.perf_counter()
    with pytest.raises(ModelUnavailable) as caught:
        LanguageModel("nobody/nothing").load()
    assert time.perf_counter() - began < 1.0
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("nobody/nothing", str(tmp_path), "HF_HUB_OFFLINE", "hf download"))


def test_a_mistyped_directory_is_named_as_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=f"no such directory.*{tmp_path}/typo"):
        LanguageModel(f"{tmp_path}/typo").identity()


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="template"):
        LanguageModel("m", template="no place for words")
    with pytest.raises(ConfigError, match="stream"):
        LanguageModel("m", stream="audio")
    with pytest.raises(ConfigError, match="layers"):
        LanguageModel("m", layers=())
