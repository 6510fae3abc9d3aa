"""The card tells what a run's files say, is refreshed in its place, and never replaces what a person wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from small_runs import dvae_config, run_folder
from tessera.config import SampleConfig
from tessera.errors import CheckpointError
from tessera.evaluate import card, figures
from tessera.evaluate.card import BEGIN, END, Card
from tessera.evaluate.card_words import plain
from tessera.evaluate.drawings import digest_of
from tessera.evaluate.figures import Evaluation, Figure
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.memorisation import Verdict
from tessera.generate import defaults
from tessera.journeys.training import train
from tessera.models import saved
from tessera.models.saved import parameters
from tessera.store import manifest
from tessera.store.manifest import HELD, LEARNED, TOKENIZER, Foreign, Manifest
from tessera.store.run import Run, checkpoint_of

ONE, OTHER, HELD_BACK = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(run_folder(tmp_path / "run"))


def fields(text: str) -> dict[str, object]:
    return yaml.safe_load(text.split("---\n")[1])


def text_of(run: Run) -> str:
    assert card.write(run)
    return (run.folder / card.NAME).read_text("utf-8")


def evaluation(run: Run, **changes: object) -> Evaluation:
    figure = Figure(
        name="R-precision|lite2", group="text", value=Estimate(0.8125, 0.75, 0.875, 64),
        floor=Estimate(0.01, 0.01, 0.01, 64), ceiling=Estimate(0.97, 0.9, 1.0, 64),
    )  # fmt: skip
    told = {"held out, looked at": 64, "drawn": 128}
    found = Evaluation(
        run="run", model=digest_of(checkpoint_of(run.folder)), settings={}, pictures=told, figures=(figure,),
        verdict=Verdict("leans on its pictures", "7 % of the drawings are near."), notes=("Nothing looked.",),
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def kept(run: Run, found: Evaluation, folder: str = "evaluation") -> None:
    (run.folder / folder).mkdir(exist_ok=True)
    figures.write(run.folder / folder, found)


# What it says.


def test_the_fields_at_the_top_are_what_a_hub_reads(run):
    found = fields(text_of(run))
    assert found["license"] == "unknown"
    assert found["library_name"] == "tessera"
    assert found["pipeline_tag"] == "text-to-image"
    assert found["tags"] == ["tessera", "t2i"]


def test_what_it_was_made_of_is_told_in_counts(run):
    pictures = {ONE: f"{LEARNED}, {TOKENIZER}", OTHER: TOKENIZER, HELD_BACK: HELD}
    manifest.write(run.folder, Manifest(pictures=pictures))
    text = text_of(run)
    assert "| pictures that this network learned | 1 |" in text
    assert "| pictures that its image tokenizer learned | 2 |" in text
    assert "| pictures held out, by which it is measured | 1 |" in text
    assert manifest.read(run.folder).digest in text
    assert "None: all weights began at random" in text
    assert ONE not in text


def test_weights_of_others_are_named_and_doubts_too(run):
    manifest.write(
        run.folder, Manifest(pictures={ONE: LEARNED}, foreign=(Foreign(part="its loss", name="Net_1", sha256=OTHER),))
    )
    text = text_of(run)
    assert f"- its loss: Net\\_1 (SHA-256 `{OTHER}`)" in text
    assert "None" not in text.split("## Weights of others")[1].split("##")[0]
    manifest.write(run.folder, Manifest(pictures={ONE: LEARNED}, unknown=("the image tokenizer",)))
    text = text_of(run)
    assert "Nothing is known of what went into the image tokenizer." in text
    assert "None: all weights" not in text


def test_figures_stand_with_their_intervals_and_the_verdict_with_its_rule(run):
    kept(run, evaluation(run))
    text = text_of(run)
    assert "| R-precision\\|lite2 ↑ | 0.812 \\[0.75, 0.875\\] | 0.01 | 0.97 |" in text
    assert "64 held-out pictures and 128 drawings" in text
    assert "**It leans on its pictures.** 7 % of the drawings are near." in text
    assert "- Nothing looked." in text


def test_figures_of_an_older_checkpoint_are_not_shown_as_those_of_this_one(run):
    kept(run, evaluation(run, model="of another"))
    assert "It was not evaluated" in text_of(run)
    kept(run, evaluation(run), "evaluation-short")
    assert "R-precision" in text_of(run)


def test_how_it_draws_and_what_chose_that(run):
    defaults.keep(run.folder, SampleConfig(guidance=2.5, top_p=0.9), [{"guidance": 2.5}])
    text = text_of(run)
    assert "guidance 2.5, top-p 0.9" in text
    assert "EfficientNet-Lite0" in text


def test_a_sheet_is_shown_where_there_is_one(run):
    assert "![" not in text_of(run)
    (run.folder / "contact-sheet.png").write_bytes(b"x")
    assert "(contact-sheet.png)" in text_of(run)


def test_a_name_means_nothing_to_markdown(tmp_path):
    run = Run(run_folder(tmp_path / "run<script>|[x](y)"))
    assert "# run\\<script\\>\\|\\[x\\](y)" in text_of(run)
    assert plain("a\n# b") == "a \\# b"


def test_every_finished_training_writes_one(bird_folder, tmp_path):
    run = train(dvae_config(bird_folder, tmp_path / "vae", steps=1, valid_every=1))
    text = (run.folder / card.NAME).read_text("utf-8")
    learned = len(manifest.read(run.folder).having(LEARNED))
    count = parameters(saved.read(checkpoint_of(run.folder)))
    assert f"an image tokenizer (pictures to codes and back) with {count:,} parameters" in text
    assert f"on {learned} pictures." in text
    assert "--tokens.image" in text
    assert "pipeline_tag" not in fields(text)
    assert "Best held-out loss" in text
    assert "contact-sheet" not in text, "previews of a tokenizer show pictures that it learned"


# Refreshed, and not.


def test_refreshing_changes_its_own_part_alone(run):
    text = text_of(run)
    own = (
        text.replace("license: unknown", "license: cc-by-4.0\ndatasets:\n- mine").replace(BEGIN, f"Before.\n\n{BEGIN}")
        + "\nAfter.\n"
    )
    own = own.replace("- t2i", "- t2i\n- birds")
    (run.folder / card.NAME).write_text(own, "utf-8")
    kept(run, evaluation(run))
    again = text_of(run)
    assert fields(again)["license"] == "cc-by-4.0"
    assert fields(again)["datasets"] == ["mine"]
    assert fields(again)["tags"] == ["tessera", "t2i", "birds"]
    assert again.split("---\n")[2].startswith("\nBefore.\n")
    assert again.endswith("\nAfter.\n")
    assert "R-precision" in again
    assert text_of(run) == again, "again changes nothing"


def test_a_licence_that_is_asked_for_takes_the_place_of_the_older_one(run):
    card.write(run, "mit")
    assert fields(text_of(run))["license"] == "mit"
    card.write(run, "cc0-1.0")
    assert card.license_in(text_of(run)) == "cc0-1.0"


@pytest.mark.parametrize(
    "content",
    [
        b"# My run\n", b"---\nlicense: mit\n---\nmine", b"\xff\xfe", f"{BEGIN}\nno end".encode(),
        f"---\n[not, fields]\n---\n{BEGIN}\n{END}\n".encode(), f"---\na: [\n---\n{BEGIN}\n{END}\n".encode(),
        f"---\nlicense: mit\n{BEGIN}\n{END}\n".encode(),
    ],
)  # fmt: skip
def test_a_readme_of_somebody_else_stays(run, content):
    (run.folder / card.NAME).write_bytes(content)
    assert not card.write(run)
    assert (run.folder / card.NAME).read_bytes() == content


def test_yaml_is_data(run, tmp_path):
    (run.folder / card.NAME).write_text(
        f"---\na: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n---\n{BEGIN}\n{END}\n"
    )
    assert not card.write(run)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_not_a_run_gets_no_card(tmp_path):
    with pytest.raises(CheckpointError):
        card.write(Run(tmp_path))


def test_over_keeps_the_text_outside_to_the_letter():
    old = f"---\nlicense: mit\n---\n\n\n x\n{BEGIN}\nold\n{END}\n\n  y\n"
    text = Card({"license": "unknown", "tags": ["tessera"]}, "new").over(old)
    assert text is not None
    assert text.endswith(f" x\n{BEGIN}\nnew\n{END}\n\n  y\n")
