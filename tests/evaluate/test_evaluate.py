"""The journey of `evaluate` on a run of two steps; what was begun goes on, and what cannot be measured is a sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tessera.cli import main
from tessera.config import EvaluateConfig, SampleConfig
from tessera.config.evaluation import PicturesConfig
from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.evaluate import features, figures, search
from tessera.evaluate.evaluation import evaluate
from tessera.evaluate.features import Seen
from tessera.evaluate.figures import Evaluation
from tessera.evaluate.subject import Subject
from tessera.generate import defaults
from tessera.generate.pipeline import Pipeline
from tessera.journeys import birds

CONFIG = EvaluateConfig(count=24, seeds=2, features="colours", ranked=3, batch=8, device="cpu")
SMALL = ["--machine.device", "cpu", "--data.workers", "0", "--valid-every", "0", "--preview-every", "0",
         "--data.holdout", "0.4"]  # fmt: skip


class Colours:
    """Sees the mean colours of sixteen parts of a picture, and takes the first four for classes."""

    name, classes = "Colours", True

    def __call__(self, pixels: torch.Tensor) -> Seen:
        seen = torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)
        return Seen(seen, (seen[:, :4] * 8).softmax(1))


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Colours:
    """Known as --features colours."""
    monkeypatch.setitem(features.FEATURES, "colours", lambda place, device: Colours())
    return Colours()


@pytest.fixture(scope="module")
def tiny_birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "birds"
    birds.draw_folder(folder, 24, pixels=16, seed=3)
    return folder


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny_birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dvae run of two steps: 4 x 4 codes of 27."""
    out = tmp_path_factory.mktemp("runs") / "vae"
    main(["train", "dvae-xs-64", "--out", str(out), "--data.path", str(tiny_birds), "--steps", "2", "--model.pixels", "16",
          "--model.layers", "2", "--model.hidden", "8", "--model.quantizer.levels", "3", "3", "3", "--optim.batch", "8", *SMALL])  # fmt: skip
    return out


@pytest.fixture(scope="module")
def tiny_run(tiny_birds: Path, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A t2i run of two steps."""
    out = tmp_path_factory.mktemp("runs") / "prior"
    main(["train", "t2i-xs-64", "--out", str(out), "--data.path", str(tiny_birds), "--tokens.image", str(tiny_tokenizer),
          "--steps", "2", "--model.transformer.dim", "16", "--model.transformer.depth", "1", "--model.transformer.heads", "1",
          "--tokens.vocab", "300", "--optim.batch", "8", *SMALL])  # fmt: skip
    return out


def silent(title: str) -> Callable[[Iterable, int], Iterable]:
    return lambda items, total: items


def told(out: Path) -> dict:
    """What evaluation.json says, but for times."""
    found = json.loads((out / "evaluation.json").read_text())
    cost = found.pop("cost")
    assert cost["parameters"] > 0
    assert cost["seconds of evaluation"] > 0
    return found


@pytest.fixture(scope="module")
def measured(tiny_run, tmp_path_factory) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(features.FEATURES, "colours", lambda place, device: Colours())
        return evaluate(str(tiny_run), dataclasses.replace(CONFIG, out=str(out)), silent).evaluation, out


def test_every_group_has_figures_with_intervals_and_the_network_in_their_names(measured):
    found, out = measured
    names = {f.name: f for f in found.figures}
    for name in ("nats per code", "bits per picture", "caption against none, nats per picture", "PSNR of reconstructions, dB",
                 "KID-Colours × 1000", "FD64-Colours", "precision-Colours", "recall-Colours", "density-Colours",
                 "coverage-Colours", "subject rate-Colours", "class agreement-Colours", "authentic (AuthPct)-Colours",
                 "C_T-Colours", "longest run of shared codes", "membership by likelihood, AUC", "codes in use"):  # fmt: skip
        f = names[name]
        assert f.value.low <= f.value.value <= f.value.high, name
        assert f.about, name
    assert {f.group for f in found.figures} >= {"drawings", "caption", "likelihood", "tokenizer", "copying"}
    for name in ("KID-Colours × 1000", "precision-Colours"):
        assert names[name].floor
        assert names[name].codes
        assert names[name].ceiling, "floor, reconstructions and photographs stand on the same line"
    assert found.verdict
    assert found.pictures["drawn"] == 24
    assert len(found.nats) == len(found.worth) == 16
    assert found == figures.read(out), "JSON says all of it"


def test_the_page_is_self_contained(measured):
    page = (measured[1] / "evaluation.html").read_text()
    assert page.count("data:image/png;base64") >= 24 + 3 * 12 + 3
    assert not any(word in page for word in ("http", "<script", 'src="/', "url("))
    assert measured[0].verdict.word in page
    assert "How the verdict is made" in page


def test_figures_are_a_function_of_the_seeds(measured, colours, tiny_run, tmp_path):
    evaluate(str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path / "again")), silent)
    assert told(tmp_path / "again") == told(measured[1])
    other = dataclasses.replace(CONFIG, out=str(tmp_path / "other"), seed=100)
    evaluate(str(tiny_run), other, silent)
    assert told(tmp_path / "other") != told(measured[1])


def test_batches_change_no_figure(measured, colours, tiny_run, tmp_path):
    evaluate(str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path / "out"), batch=5), silent)
    assert told(tmp_path / "out") == told(measured[1])


def test_a_stopped_evaluation_goes_on(measured, colours, tiny_run, tmp_path, monkeypatch):
    out, drawn = tmp_path / "out", []
    draw = Pipeline.draw

    def stopping(self, prompts, seeds, *args, **options):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(list(seeds))
        return draw(self, prompts, seeds, *args, **options)

    config = dataclasses.replace(CONFIG, out=str(out))
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(str(tiny_run), config, silent)
    assert not (out / "evaluation.json").exists()
    with monkeypatch.context() as patch:
        drawn.clear()
        patch.setattr(
            Pipeline, "draw", lambda self, p, seeds, *a, **o: drawn.append(list(seeds)) or draw(self, p, seeds, *a, **o)
        )
        evaluate(str(tiny_run), config, silent)
    assert drawn == [list(range(16, 24))], "the sixteen that were there are not drawn again"
    assert told(out) == told(measured[1])
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "load", lambda *a, **o: pytest.fail("nothing is left to draw"))
        evaluate(str(tiny_run), config, silent)
    assert told(out) == told(measured[1])


def test_without_a_network_the_other_figures_are_given(tiny_run, tmp_path):
    found = evaluate(
        str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path / "out"), features="none"), silent
    ).evaluation
    names = [f.name for f in found.figures]
    assert "nats per code" in names
    assert "authentic (AuthPct)-pixels" in names
    assert not any("KID" in name or "FD" in name for name in names)
    assert any("features none" in note for note in found.notes)
    assert found.verdict


def test_only_inception_is_called_fid(colours, tiny_run, tmp_path, monkeypatch):
    names = []
    for name in ("Inception", "Inception-01234567"):
        monkeypatch.setattr(Colours, "name", name)
        found = evaluate(
            str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path / "out"), ranked=0), silent
        ).evaluation
        names += [f.name for f in found.figures if f.name.startswith(("FID", "FD"))]
    assert names == ["FD64-Inception", "FID", "FD64-Inception-01234567"]


def test_an_image_tokenizer_alone_has_its_own_figures(colours, tiny_tokenizer, tmp_path):
    found = evaluate(str(tiny_tokenizer), dataclasses.replace(CONFIG, out=str(tmp_path / "out")), silent).evaluation
    assert {f.group for f in found.figures} == {"tokenizer"}
    assert found.verdict is None
    assert any("does not draw by itself" in note for note in found.notes)
    assert (tmp_path / "out" / "evaluation.html").is_file()


def test_no_drawings_where_none_are_asked_for(colours, tiny_run, tmp_path):
    config = dataclasses.replace(CONFIG, out=str(tmp_path / "out"), count=0)
    found = evaluate(str(tiny_run), config, silent).evaluation
    assert {f.group for f in found.figures} == {"caption", "likelihood", "tokenizer", "copying"}
    assert found.verdict is None


# A judge, and other captions.


@pytest.fixture(scope="module")
def judge(tiny_birds, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("judge") / "run"
    main(["train", "clip-xs-64", "--out", str(out), "--data.path", str(tiny_birds), "--steps", "2", "--model.pixels", "16",
          "--model.text-depth", "1", "--model.image-depth", "1", "--tokens.vocab", "300", "--optim.batch", "8", *SMALL])  # fmt: skip
    return out


def test_a_judge_of_its_own_ranks_captions(colours, tiny_run, judge, tmp_path):
    found = evaluate(
        str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path / "out"), judge=str(judge)), silent
    ).evaluation
    (figure,) = [f for f in found.figures if f.name.startswith("R-precision among")]
    among = int(figure.name.split()[-1])
    assert 10 < among <= 100
    assert figure.floor
    assert figure.floor.value == 1 / among
    assert figure.ceiling


def test_the_judge_that_ranks_drawings_may_not_judge_them(colours, tiny_run, judge, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.copytree(judge, run / "judge")
    with pytest.raises(ConfigError, match="ranks the drawings"):
        evaluate(str(run), dataclasses.replace(CONFIG, judge=str(run / "judge")), silent)
    with pytest.raises(CheckpointError, match="no judge"):
        evaluate(str(run), dataclasses.replace(CONFIG, judge=str(tmp_path / "nowhere")), silent)


# What cannot be measured.


def test_a_judge_has_no_pictures_to_measure(colours, judge):
    with pytest.raises(CheckpointError, match="makes no pictures"):
        evaluate(str(judge), CONFIG, silent)


def test_a_folder_that_is_no_run_is_a_sentence_and_stays_as_it_is(colours, tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        evaluate(str(tmp_path), CONFIG, silent)
    assert not list(tmp_path.iterdir())


def test_moved_pictures_are_asked_for_and_found_again(colours, tiny_run, tiny_birds, measured, tmp_path):
    run, moved = tmp_path / "prior", tmp_path / "moved"
    shutil.copytree(tiny_run, run)
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["path"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"does not exist.*--data\.path PICTURES"):
        evaluate(str(run), CONFIG, silent)
    assert not (run / "evaluation").exists()
    shutil.copytree(tiny_birds, moved)
    evaluate(str(run), dataclasses.replace(CONFIG, data=PicturesConfig(path=str(moved))), silent)
    assert told(run / "evaluation") == told(measured[1]), "the same pictures are held out wherever they lie"


@pytest.fixture(scope="module")
def held_nothing(tiny_run, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("all") / "prior"
    shutil.copytree(tiny_run, run)
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["holdout"] = 0.0
    (run / "config.json").write_text(json.dumps(settings))
    return run


def test_a_run_that_held_nothing_back_asks_for_other_pictures(colours, held_nothing, tiny_birds, tmp_path):
    with pytest.raises(ConfigError, match=r"held no pictures back.*--data\.path"):
        evaluate(str(held_nothing), CONFIG, silent)
    with pytest.raises(ConfigError, match="learned all pictures"):
        evaluate(str(held_nothing), dataclasses.replace(CONFIG, data=PicturesConfig(path=str(tiny_birds))), silent)
    birds.draw_folder(tmp_path / "new", 6, pixels=16, seed=9)
    config = dataclasses.replace(CONFIG, data=PicturesConfig(path=str(tmp_path / "new")))
    found = evaluate(str(held_nothing), config, silent).evaluation
    assert (found.pictures["held out"], found.pictures["learned"]) == (6, 24)


def test_three_pictures_are_too_few(colours, held_nothing, tmp_path):
    birds.draw_folder(tmp_path / "three", 3, pixels=16, seed=9)
    with pytest.raises(DataError, match="3 held-out pictures"):
        evaluate(
            str(held_nothing), dataclasses.replace(CONFIG, data=PicturesConfig(path=str(tmp_path / "three"))), silent
        )


def test_a_foreign_folder_is_not_written_into(colours, tiny_run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        evaluate(str(tiny_run), dataclasses.replace(CONFIG, out=str(tmp_path)), silent)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--features", "vgg"], "no features 'vgg'"),
        (["--features", "inception"], "inception:PATH"),
        (["--count", "-1"], "count"),
        (["--seeds", "7", "--count", "5"], "seeds is 7"),
        (["--judge", "nowhere"], "no judge"),
        (["--data.path", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_options_are_sentences(tiny_run, args, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "evaluate",
                str(tiny_run),
                "--device",
                "cpu",
                *(args if "--features" in args else ["--features", "none", *args]),
            ]
        )
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_the_command_prints_the_table_and_the_verdict(tiny_run, tmp_path, capsys):
    main(["evaluate", str(tiny_run), "--features", "none", "--count", "8", "--seeds", "1", "--ranked", "2", "--guidance", "1",
          "--out", str(tmp_path / "out"), "--device", "cpu"])  # fmt: skip
    out = capsys.readouterr().out
    assert "nats per code" in out
    assert "evaluation.html" in out
    found = figures.read(tmp_path / "out")
    assert found.settings["guidance"] == 1
    assert found.verdict
    assert found.verdict.reason in out


# How a run draws.


def test_a_run_draws_as_a_race_found_it_unless_told_otherwise(tiny_run, tmp_path, monkeypatch):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for name in ("FEWEST", "MOST"):
        monkeypatch.setattr(search, name, 4)
    pipeline, subject = Pipeline.load(run, "cpu"), Subject.load(run, device="cpu")
    assert search.search(pipeline, subject, Colours(), 0.0, 0, silent) == search.Found([]), "no time"
    found = search.search(pipeline, subject, Colours(), 1e6, 2**63 - 20, silent)
    assert sorted(t.count for t in found.tried) == [*[4] * 8, 8, 8, 16, 16]
    assert found.several
    assert found.several.best.sampling == found.tried[0].sampling
    assert (found.several.one.count, found.several.best.count) == (8, 8)
    way = SampleConfig(guidance=3.0, temperature=0.0)
    defaults.keep(run, way, [t.row() for t in found.tried] + [found.several.row()])
    caption = subject.held[0].captions[0]
    ours, plain = (pipeline.draw([caption], [5], s)[0] for s in (way, SampleConfig()))
    assert ours.codes != plain.codes
    loaded = Pipeline.load(run, "cpu")
    assert loaded(caption, seed=5)[0].codes == ours.codes
    assert loaded(caption, seed=5, guidance=1.0, temperature=1.0)[0].codes == plain.codes
    for name, more, wanted in (("a", [], ours), ("b", ["--guidance", "1", "--temperature", "1"], plain)):
        main(["generate", str(run), caption, "--seed", "5", "--count", "1", "--out", str(tmp_path / name), *more])
        (picture,) = (tmp_path / name).glob("*/5.png")
        assert np.array_equal(np.array(Image.open(picture)), np.array(wanted.image))


def test_a_run_is_evaluated_as_it_draws(tiny_run, tmp_path, colours):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    defaults.keep(run, SampleConfig(guidance=3.0, top_p=0.5), [])
    main(
        [
            "evaluate",
            str(run),
            "--count",
            "8",
            "--seeds",
            "1",
            "--features",
            "colours",
            "--ranked",
            "0",
            "--top-p",
            "0.7",
        ]
    )
    settings = told(run / "evaluation")["settings"]
    assert (settings["guidance"], settings["top_p"]) == (3.0, 0.7)
