"""The judge: what it learned, and the best of many."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from conftest import MODERN, TINY_DVAE, prior
from tessera.cli import main
from tessera.config import SampleConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.generate.judge import CLIPJudge, OwnJudge
from tessera.generate.pipeline import Picture, Pipeline, Request
from tessera.models.dvae import DiscreteVAE
from tessera.store.run import Run
from tessera.tokens.image import Frozen
from tessera.tokens.text import train_bpe


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


def test_the_model_itself_ranks_by_what_the_prompt_explains():
    """Its score is the sum over all codes of log p(code | prompt, before) - log p(code | before), spelled out."""
    text = train_bpe(["a red bird", "a blue bird"] * 3, 300)
    torch.manual_seed(0)
    pipeline = Pipeline(prior(MODERN, text_vocab=text.vocab, image_vocab=27), text, Frozen(DiscreteVAE(TINY_DVAE)))
    model, drawn = pipeline.model, pipeline.draw(["a red bird", "a blue bird", "a bird"], [1, 2, 3], SampleConfig())
    wanted = []
    for picture in drawn:
        tokens, codes = pipeline.tokens([picture.prompt]), torch.tensor([picture.codes])
        each = []
        for caption in (tokens, model.null_caption(tokens)):
            logits = [model.image_logits(caption, codes[:, :place])[0, place] for place in range(codes.shape[1])]
            each.append(sum(x.detach().log_softmax(-1)[code] for x, code in zip(logits, picture.codes, strict=True)))
        wanted.append(float(each[0] - each[1]))
    own = OwnJudge(model, pipeline.prompts)
    assert own.scores(drawn).tolist() == pytest.approx(wanted, abs=1e-4)
    assert len(set(wanted)) == 3
    best = pipeline.best(Request("a red bird", count=1, seed=5), own, 4)
    assert best[0].score == pytest.approx(
        max(own.scores(list(pipeline.stream(Request("a red bird", count=4, seed=5)))))
    )


def test_a_run_that_is_no_judge_is_refused(tmp_path):
    from tessera.models import saved

    saved.write(tmp_path / "m", DiscreteVAE(TINY_DVAE))
    with pytest.raises(CheckpointError, match="does not rank"):
        CLIPJudge.load(tmp_path / "m")
    with pytest.raises(CheckpointError, match="no judge"):
        CLIPJudge.load(tmp_path / "nothing")
