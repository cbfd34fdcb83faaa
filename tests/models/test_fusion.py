"""Fusion heads: what is absent cannot speak, and members do not mix."""

import pytest
import torch
from torch import nn

from orchestrator.models.fusion import AttentionFusion, Concatenation, GatedExperts, Head, Linear, MerToolsAttention

DIMS = {"video": 5, "audio": 7, "audio.whisper": 4}
HEADS = [
    AttentionFusion(width=8),
    AttentionFusion(width=8, learn_missing=True),
    AttentionFusion(width=8, residual=False),
    Concatenation(width=8),
    Concatenation(width=8, learn_missing=True),
    GatedExperts(width=8),
    MerToolsAttention(width=8),
    Linear(),
]


def build(recipe: Head, members: int = 3) -> nn.Module:
    torch.manual_seed(1)
    head = recipe.build(DIMS, classes=4, members=members).eval()
    for parameter in head.parameters():  # heads start near zero; a test needs them to speak
        nn.init.normal_(parameter, std=0.5)
    return head


def inputs(clips: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {stream: torch.randn(clips, width) for stream, width in DIMS.items()}


@pytest.mark.parametrize("recipe", HEADS, ids=repr)
@pytest.mark.parametrize("rubbish", [1e30, float("nan"), float("inf")])
def test_what_stands_in_an_absent_stream_does_not_change_a_bit_of_the_logits(recipe: Head, rubbish: float) -> None:
    head, features = build(recipe), inputs()
    present = torch.ones(6, 3, dtype=torch.bool)
    present[1, 0] = present[2, 1] = present[3, 2] = False
    clean = head({stream: rows.masked_fill(~present[:, [m]], 0.0) for m, (stream, rows) in enumerate(features.items())}, present)
    dirty = head(
        {stream: rows.masked_fill(~present[:, [m]], rubbish) for m, (stream, rows) in enumerate(features.items())}, present
    )
    assert torch.equal(clean, dirty)


@pytest.mark.parametrize("recipe", HEADS, ids=repr)
def test_every_stream_that_is_there_speaks(recipe: Head) -> None:
    head, features = build(recipe), inputs()
    present = torch.ones(6, 3, dtype=torch.bool)
    told = head(features, present)
    for stream in DIMS:
        assert not torch.allclose(told, head(features | {stream: features[stream] + 1.0}, present))


@pytest.mark.parametrize("recipe", HEADS, ids=repr)
def test_a_clip_with_nothing_gets_one_finite_answer_whatever_its_rows_hold(recipe: Head) -> None:
    told = build(recipe)(inputs(), torch.zeros(6, 3, dtype=torch.bool))
    assert torch.isfinite(told).all()
    assert torch.equal(told, told[:, :1].expand_as(told))


@pytest.mark.parametrize("recipe", HEADS, ids=repr)
def test_members_answer_as_they_would_alone(recipe: Head) -> None:
    head, features = build(recipe), inputs()
    alone = recipe.build(DIMS, 4, 1).eval()
    alone.load_state_dict({name: tensor[1:2] for name, tensor in head.state_dict().items()})
    present = torch.ones(6, 3, dtype=torch.bool)
    torch.testing.assert_close(head(features, present)[1:2], alone(features, present))


@pytest.mark.parametrize("recipe", HEADS, ids=repr)
def test_presence_may_differ_by_member(recipe: Head) -> None:
    head, features = build(recipe), inputs()
    present = torch.ones(3, 6, 3, dtype=torch.bool)
    present[2, :, 0] = False
    told = head(features, present)
    torch.testing.assert_close(told[:2], head(features, present[0])[:2])
    torch.testing.assert_close(told[2], head(features, present[2])[2])


def test_a_learnt_missing_token_says_something_of_its_own() -> None:
    head, features = build(AttentionFusion(width=8, learn_missing=True)), inputs()
    present = torch.ones(6, 3, dtype=torch.bool)
    present[:, 2] = False
    before = head(features, present)
    with torch.no_grad():
        head.get_parameter("tokens.missing").add_(1.0)
    assert not torch.allclose(before, head(features, present))


def test_linear_is_logistic_regression() -> None:
    head, features = build(Linear(), members=1), inputs()
    joined = torch.cat(list(features.values()), dim=1)
    weight = torch.cat([head.get_parameter(f"experts.{m}.weight")[0] for m in range(3)])
    bias = head.get_parameter("bias")[0] + sum(head.get_parameter(f"experts.{m}.bias")[0] for m in range(3))
    torch.testing.assert_close(head(features, torch.ones(6, 3, dtype=torch.bool))[0], joined @ weight + bias)


@pytest.mark.parametrize("cls", [AttentionFusion, Concatenation, GatedExperts, MerToolsAttention])
def test_wrong_sizes_are_refused(cls: type[AttentionFusion]) -> None:
    with pytest.raises(ValueError, match="width"):
        cls(width=0)
    with pytest.raises(ValueError, match="dropout"):
        cls(dropout=1.0)
