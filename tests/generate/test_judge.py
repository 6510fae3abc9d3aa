"""The judge and the completion of captions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from conftest import CLASSIC, MODERN, TINY_DVAE, prior
from tessera.cli import main
from tessera.config import CLIPConfig, SampleConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.generate import captions
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Picture, Pipeline, Request
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.store.run import Run
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers, train_bpe

TINY = CLIPConfig(text_vocab=20, text_len=5, pixels=16, patch=8, dim_text=16, dim_image=16, dim_latent=8, text_depth=1,
                  image_depth=1, text_heads=2, image_heads=2, head_dim=8)  # fmt: skip


def clip() -> CLIP:
    torch.manual_seed(1)
    return CLIP(TINY).eval()


def test_padding_is_neither_seen_nor_averaged():
    model = clip()
    short = CLIP(dataclasses.replace(TINY, text_len=3)).eval()
    state = model.state_dict()
    short.load_state_dict({**state, "text_position.weight": state["text_position.weight"][:3]})
    tokens = torch.tensor([[3, 7, 9, 23, 24]])  # three words and the padding of the places after them
    pixels = torch.rand(1, 3, 16, 16)
    assert_close(model.scores(tokens, pixels), short.scores(tokens[:, :3], pixels))


def test_the_loss_is_the_symmetric_cross_entropy():
    model, tokens, pixels = clip(), torch.randint(0, 20, (4, 5)), torch.rand(4, 3, 16, 16)
    logits = torch.stack([torch.stack([model.scores(t[None], p[None])[0] for p in pixels]) for t in tokens])
    own = torch.arange(4)
    slow = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    loss = model(tokens, pixels)
    assert_close(loss.total, slow)
    assert loss.accuracy == (logits.argmax(0) == own).float().mean()
    assert_close(model.scores(tokens, pixels), logits.diagonal())


@pytest.fixture(scope="module")
def judge(bird_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge") / "run"
    main(["train", "clip-xs-64", "--data.path", str(bird_folder), "--out", str(out), "--steps", "200", "--model.pixels",
          "32", "--model.text-depth", "1", "--model.image-depth", "1", "--model.dim-text", "64", "--model.dim-image", "64",
          "--optim.batch", "16", "--optim.lr", "2e-3", "--optim.warmup", "10", "--data.holdout", "0.3", "--valid-every", "200",
          "--data.crop", "1", "--machine.precision", "float32", "--data.workers", "0"])  # fmt: skip
    return out


def test_a_trained_judge_knows_what_belongs_together(judge, bird_folder):
    rows = Run(judge).read_metrics()
    losses = [r["loss"] for r in rows if "loss" in r]
    assert losses[-1] < 0.7 * losses[0]
    referee = CLIPJudge.load(judge)
    files = sorted(bird_folder.glob("*.png"))[:12]
    captions = [f.with_suffix(".txt").read_text().splitlines()[0] for f in files]
    own = referee.scores([Picture(Image.open(f), c, 0) for f, c in zip(files, captions, strict=True)])
    others = referee.scores(
        [Picture(Image.open(f), c, 0) for f, c in zip(files, captions[1:] + captions[:1], strict=True)]
    )
    assert (own > others).float().mean() > 0.7


def test_best_of_keeps_the_highest_scores(judge):
    text = train_bpe(["a red bird"] * 3, 300)
    model = prior(MODERN, text_vocab=text.vocab, image_vocab=27)
    pipeline = Pipeline(model, text, Frozen(DiscreteVAE(TINY_DVAE)))
    referee = CLIPJudge.load(judge)
    request = Request("a red bird", count=2, seed=5)
    drawn = list(pipeline.stream(dataclasses.replace(request, count=6)))
    scores = referee.scores(drawn)
    best = pipeline.best(request, referee, 6)
    assert [p.seed for p in best] == [5 + int(i) for i in scores.argsort(descending=True)[:2]]
    assert [p.score for p in best] == pytest.approx(sorted(scores.tolist(), reverse=True)[:2])
    with pytest.raises(ConfigError, match="best-of is 1"):
        pipeline.best(request, referee, 1)


def test_a_run_that_is_no_judge_is_refused(tmp_path):
    from tessera.models import saved

    saved.write(tmp_path / "m", DiscreteVAE(TINY_DVAE))
    with pytest.raises(CheckpointError, match="does not rank"):
        CLIPJudge.load(tmp_path / "m")
    with pytest.raises(CheckpointError, match="no judge"):
        CLIPJudge.load(tmp_path / "nothing")


# Completing captions.


@pytest.mark.parametrize("base", [MODERN, dataclasses.replace(CLASSIC, reversible=True)], ids=["modern", "classic"])
def test_text_is_continued_as_it_was_trained(base):
    """Token by token with the past = the whole caption at once: <bos>, shift and positions included."""
    model = prior(base)
    tokens = torch.randint(1, 20, (2, 5))
    with torch.no_grad():
        whole = model.text_head.logits(model.hidden(tokens, torch.zeros(2, 0, dtype=torch.long))[:, :5])
        past = model.past(2)
        steps = [model.continue_text(tokens[:, :0], past)]
        steps += [model.continue_text(tokens[:, i : i + 1], past) for i in range(4)]
        assert_close(torch.stack(steps, 1), whole, atol=1e-4, rtol=1e-4)
        past = model.past(2)
        assert_close(model.continue_text(tokens[:, :3], past), whole[:, 3], atol=1e-4, rtol=1e-4)


def test_captions_begin_as_asked_and_end():
    model = prior(MODERN, learn_padding=True)
    begun = torch.tensor([[4, 9], [4, 9], [4, 9]])
    rows = captions.texts(model, begun, [1, 2, 3], SampleConfig())
    assert rows[:, :2].tolist() == begun.tolist()
    for row in rows.tolist():
        ended = [i for i, token in enumerate(row) if token >= 20]
        assert ended == list(range(min(ended, default=5), 5))
        assert all(row[i] == 20 + i for i in ended)
    alone = captions.texts(model, begun[:1], [2], SampleConfig())
    assert alone[0].tolist() == rows[1].tolist()
    assert captions.texts(model, begun[:1, :0], [7], SampleConfig())[0, 0] < 20, "a caption has a first word"


def test_the_pipeline_completes_with_any_tokenizer():
    pipeline = Pipeline(prior(MODERN, image_vocab=27), Numbers(20), Frozen(DiscreteVAE(TINY_DVAE)))
    (caption,) = pipeline.complete("4 9", [0], SampleConfig())
    assert caption.split()[:2] == ["4", "9"]
    with pytest.raises(ConfigError, match="captions end at 5"):
        pipeline.complete("1 2 3 4 5", [0], SampleConfig())
