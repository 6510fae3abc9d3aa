"""A run goes to a hub and comes back: the same pictures, nothing of the user's besides, nothing that runs."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tessera
from conftest import fails
from small_hub import TOKEN, Hub, Repo, hub_in_a_thread
from small_runs import run_folder
from tessera.cli import main
from tessera.config import SampleConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.files.own import MARKER
from tessera.generate import defaults
from tessera.hub import names, pull
from tessera.hub.client import Client
from tessera.hub.names import Name, parse, wanted
from tessera.hub.pull import located, ours
from tessera.journeys import birds
from tessera.store import manifest
from tessera.store.run import Run, checkpoint_of

constants = pytest.importorskip("huggingface_hub.constants")

# huggingface_hub hands files over in a way that its own client calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
SMALL = ["--machine.device", "cpu", "--data.workers", "0", "--valid-every", "0", "--preview-every", "1", "--steps", "2",
         "--save-every", "1", "--data.holdout", "0.3", "--optim.batch", "8"]  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process speaks to as its owner."""
    with hub_in_a_thread() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        pull._fetched_once.cache_clear()
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("alice") / "birds"
    birds.draw_folder(found, 30, pixels=16, seed=3)
    return found


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and a prior of two steps each, in folders of these names."""
    out = tmp_path_factory.mktemp("alice_runs")
    data = ["--data.path", str(folder), *SMALL]
    main(["train", "dvae-xs-64", "--out", str(out / "vae"), "--model.pixels", "16", "--model.layers", "2",
          "--model.hidden", "8", "--model.quantizer.levels", "3", "3", "3", *data])  # fmt: skip
    main(["train", "t2i-xs-64", "--out", str(out / "prior"), "--tokens.image", str(out / "vae"), "--tokens.vocab", "300",
          "--model.transformer.dim", "16", "--model.transformer.depth", "1", "--model.transformer.heads", "1", *data])  # fmt: skip
    return out


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in a folder that a test may change; the test works beside it."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def pictures(run: str) -> list[tuple[bytes, tuple[int, ...]]]:
    drawn = tessera.load(run, device="cpu")("a small red bird", count=3, seed=7)
    return [(picture.image.tobytes(), picture.codes) for picture in drawn]


# There and back.


def test_a_run_pushed_deleted_pulled_and_drawn_from_gives_the_same_pictures(hub, runs, capsys):
    defaults.keep(runs / "prior", SampleConfig(guidance=1.5, top_p=0.9), [])
    before, digest = pictures("runs/prior"), (runs / "prior" / "manifest.json").read_bytes()
    main(["push", "runs/prior", "alice/birds"])
    said = capsys.readouterr().out
    for path, content in hub.repos["alice/birds"].files.items():
        assert f"  {path} " in said, "what is sent is shown"
        assert path == MARKER or ours(path)
        assert str(runs.parent) not in content.decode("latin1"), f"{path} tells a path of this machine"
    shutil.rmtree(runs / "prior")
    main(["pull", "alice/birds"])
    assert pictures("runs/birds") == before
    assert (runs / "birds" / "manifest.json").read_bytes() == digest
    assert Run(runs / "birds").best() == checkpoint_of(runs / "birds")
    assert Run(runs / "birds").config().model == Run(runs / "birds").config().model
    assert pictures("alice/birds") == pictures("hf:alice/birds") == before


def test_it_is_private_unless_asked_for(hub, runs, capsys):
    main(["push", "runs/prior", "alice/birds"])
    assert hub.repos["alice/birds"].private
    assert "is private" in fails(capsys, "push", "runs/prior", "alice/birds", "--public")
    main(["push", "runs/prior", "alice/open", "--public"])
    assert not hub.repos["alice/open"].private
    before = dict(hub.repos["alice/open"].files)
    assert "is open to everybody" in fails(capsys, "push", "runs/vae", "alice/open")
    assert hub.repos["alice/open"].files == before


def test_a_dry_run_shows_the_same_list_and_asks_nobody(hub, runs, capsys):
    main(["push", "runs/prior", "alice/birds", "--dry-run"])
    first = capsys.readouterr().out
    assert not hub.asked
    assert first.endswith("Nothing was sent.\n")
    main(["push", "runs/prior", "alice/birds"])
    listed = [line for line in first.splitlines() if line.startswith("  ")]
    assert listed == [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]


def test_no_training_picture_is_sent_unless_asked_for(hub, runs, capsys):
    shown = {"report.html", "samples/step-000001.png", "samples/step-000002.png"}
    assert all((runs / "vae" / name).is_file() for name in shown)
    main(["push", "runs/vae", "alice/vae"])
    sent = hub.repos["alice/vae"].files
    assert not [path for path in sent if path.endswith((".png", ".html", ".webp", ".npy"))]
    assert not {path for path in sent if "codes" in path or path == "data.json"}
    main(["push", "runs/vae", "alice/vae", "--pictures"])
    assert shown <= hub.repos["alice/vae"].files.keys()
    main(["pull", "alice/vae", "--out", "back"])
    assert not [path for path in Path("back").rglob("*") if path.suffix in (".html", ".png")], "pages are not fetched"


def test_training_goes_on_from_what_was_pushed_with_training(hub, runs, folder, monkeypatch, capsys):
    main(["push", "runs/vae", "alice/vae", "--training"])
    monkeypatch.chdir(folder.parent)  # its settings call the pictures by their name alone
    main(["pull", "alice/vae", "--out", str(runs / "again")])
    main(["train", str(runs / "again"), "--steps", "3"])
    assert "Going on from step 2" in capsys.readouterr().out
    assert [p.name for p in Run(runs / "again").checkpoints()][-1] == "step-000003"


def test_a_second_push_takes_the_older_checkpoint_away_and_leaves_what_is_not_ours(hub, runs, folder, capsys):
    main(["push", "runs/vae", "alice/vae"])
    repo = hub.repos["alice/vae"]
    old = next(path for path in repo.files if path.endswith("/weights.safetensors"))
    repo.files |= {"notes.txt": b"mine", ".gitattributes": b"* -text"}
    main(["train", str(runs / "vae"), "--data.path", str(folder), "--steps", "4"])
    main(["push", "runs/vae", "alice/vae"])
    assert "files of an earlier push go" in capsys.readouterr().out
    assert old not in repo.files
    assert repo.files["notes.txt"] == b"mine"
    assert ".gitattributes" in repo.files
    pull._fetched_once.cache_clear()
    assert checkpoint_of(located("alice/vae")).name == Run(runs / "vae").best().name


def test_a_repository_that_tessera_did_not_begin_is_refused(hub, runs, capsys):
    hub.repos["alice/other"] = Repo(True, {"pytorch_model.bin": b"x", "README.md": b"# Mine"})
    before = dict(hub.repos["alice/other"].files)
    assert "is not empty and Tessera did not begin it" in fails(capsys, "push", "runs/prior", "alice/other")
    assert hub.repos["alice/other"].files == before


# Stopped, and gone on with.


def test_an_upload_that_is_killed_half_way_goes_on(hub, runs, tmp_path, monkeypatch, capsys):
    """The process is killed while a large file is on its way; the same command sends only what was missing."""
    held, begun, asked = threading.Event(), threading.Event(), itertools.count()

    def wait(oid: str) -> None:
        if next(asked):  # the first one arrives, the others, which come at the same time, never do
            begun.set()
            held.wait(60)

    hub.before_storing = wait
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    environment["PYTHONPATH"] = str(Path(tessera.__file__).parents[1])
    command = [sys.executable, "-m", "tessera", "push", "runs/prior", "alice/birds"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (begun.is_set() and hub.large) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert len(hub.large) == 1
    assert not hub.repos["alice/birds"].files, "nothing is there until all of it is"
    (there,) = hub.large
    hub.before_storing = lambda oid: None
    held.set()
    main(["push", "runs/prior", "alice/birds"])
    assert hub.stored().count(there) == 1, "what was there is not sent again"
    shutil.rmtree(runs / "prior" / "samples")
    expected = pictures("runs/prior")
    shutil.rmtree(runs / "prior")
    assert pictures("alice/birds") == expected


def test_a_download_that_breaks_off_goes_on(hub, runs, capsys):
    main(["push", "runs/prior", "alice/birds"])
    hub.cut = 1000
    main(["pull", "alice/birds"])
    assert pictures("runs/birds") == pictures("runs/prior")


def test_a_pull_that_was_stopped_goes_on_in_its_folder(hub, runs, monkeypatch, capsys):
    main(["push", "runs/prior", "alice/birds"])

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pull, "_put", stop)
        with pytest.raises(SystemExit) as stopped:
            main(["pull", "alice/birds"])
    assert stopped.value.code == 130
    assert "again to go on" in capsys.readouterr().err
    main(["pull", "alice/birds"])
    assert pictures("runs/birds") == pictures("runs/prior")
    assert "holds a run already" in fails(capsys, "pull", "alice/birds")


def test_pull_touches_no_folder_of_the_users(hub, runs, capsys):
    main(["push", "runs/prior", "alice/birds"])
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    assert "is not empty and Tessera did not begin it" in fails(capsys, "pull", "alice/birds", "--out", "mine")
    assert os.listdir("mine") == ["letter.txt"]


def test_a_run_that_lost_its_settings_is_not_taken_for_a_stopped_pull(hub, runs, capsys):
    main(["push", "runs/prior", "alice/birds"])
    (runs / "vae" / "config.json").unlink()
    before = sorted(path for path in (runs / "vae").rglob("*"))
    assert "holds a run already" in fails(capsys, "pull", "alice/birds", "--out", "runs/vae")
    assert sorted(path for path in (runs / "vae").rglob("*")) == before


# What is fetched is checked, and is data.


def pushed(hub: Hub, runs: Path) -> Repo:
    main(["push", "runs/prior", "alice/birds"])
    return hub.repos["alice/birds"]


def test_nothing_but_what_a_run_is_made_of_is_fetched(hub, runs, tmp_path):
    repo = pushed(hub, runs)
    step = next(path.split("/")[0] for path in repo.files if path.endswith("/weights.safetensors"))
    bad = ["run.py", "pytorch_model.bin", "optimizer.pt", f"{step}/state.pkl", f"{step}/../../evil.json",
           f"{step}/.hidden.json", "evil.html", "/etc/x.json", "samples/step-000001.png", "tessera/__init__.py"]  # fmt: skip
    repo.files |= dict.fromkeys(bad, b"evil")
    found = located("alice/birds")
    assert pictures("alice/birds")
    there = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    assert there <= {path for path in repo.files if ours(path)}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("STEP/weights.safetensors", lambda old: old[:-4] + b"\0\0\0\1", "its checksum differs"),
        ("STEP/weights.safetensors", lambda old: old[: len(old) // 2], "is damaged"),
        ("STEP/weights.safetensors", lambda old: b"\x80\x04cos\nsystem\n", "is damaged"),
        ("STEP/checksums.json", lambda old: b'{"sha256": {"../../../etc/passwd": "0"}}', "outside of the folder"),
        ("STEP/config.json", lambda old: old.replace(b'"depth": 1', b'"depth": 9000'), "checksum differs"),
        ("config.json", lambda old: b'{"model": {"kind": "program"}}', "does not hold a run's settings"),
        ("config.json", lambda old: b"[" * 100_000, "does not hold a run's settings"),
        ("manifest.json", lambda old: b'{"pictures": {"x": "learned"}}', "is not a SHA-256"),
        ("best", lambda old: b"../../../home", None),
    ],
)  # fmt: skip
def test_what_was_changed_on_the_way_is_refused(hub, runs, path, change, says, capsys):
    repo = pushed(hub, runs)
    step = next(p.split("/")[0] for p in repo.files if p.endswith("/weights.safetensors"))
    path = path.replace("STEP", step)
    repo.files[path] = change(repo.files[path])
    if says is None:  # a name that leads nowhere: the newest checkpoint is taken
        assert pictures("alice/birds") == pictures("runs/prior")
        return
    with pytest.raises(CheckpointError, match=f"alice/birds is not a whole run of Tessera: .*{says}"):
        tessera.load("alice/birds")
    assert says in fails(capsys, "pull", "alice/birds", "--out", "back")
    assert not (Path("back") / "config.json").exists()


def test_another_programs_model_is_named_as_such(hub, capsys):
    hub.repos["alice/other"] = Repo(False, {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(
        CheckpointError, match=r"not a run that Tessera pushed: it holds config.json, model.safetensors"
    ):
        tessera.load("alice/other")


# Names.


@pytest.mark.parametrize(
    "text", ["alice/birds", "hf:alice/birds", "A-1/b_2.x", "alice/birds@v1.0", "alice/birds@refs/pr/1"]
)
def test_names_of_the_hub(text):
    name = parse(text)
    assert text.removeprefix("hf:") == str(name)


@pytest.mark.parametrize(
    "text", ["birds", "a/b/c", "/a/b", "../a", "a/..", "~/a", "a/b ", "a\\b/c", "hf:birds", "a/b@..", ""]
)
def test_what_is_not_a_name_is_refused(text):
    with pytest.raises(ConfigError, match="is not a name on the hub"):
        parse(text)


def test_a_folder_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert wanted("alice/birds") == Name("alice/birds")
    assert wanted(Path("alice/birds")) is None
    for local in ("runs/birds", "./alice/birds", "/alice/birds", "birds", "alice/birds/step-000001", ""):
        assert wanted(local) is None
    Path("alice").mkdir()  # a misspelled folder beside others is not looked for among other people's
    assert wanted("alice/birds") is None
    assert wanted("hf:alice/birds") == Name("alice/birds")


def test_what_is_not_there_is_a_sentence(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no model of that name on the hub" in fails(capsys, "generate", "alice/nothing", "a bird")
    assert "There is no run folder runs/nothing" in fails(capsys, "generate", "runs/nothing", "a bird")
    assert not [line for line in hub.asked if "runs/nothing" in line]
    assert "There is no run folder" in fails(capsys, "push", "runs/nothing", "alice/birds")


def test_a_private_run_needs_its_owner(hub, runs, monkeypatch, capsys):
    pushed(hub, runs)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(runs / "no-token"))
    assert "hf auth login" in fails(capsys, "generate", "alice/birds", "a bird")
    assert "hf auth login" in fails(capsys, "push", "runs/prior", "alice/new")


def test_a_revision_is_what_it_was(hub, runs, folder, capsys):
    first = pushed(hub, runs).sha
    main(["pull", f"alice/birds@{first}", "--out", "back"])
    assert f"as of {first[:12]}" in capsys.readouterr().out
    assert "cannot be looked up" in fails(capsys, "pull", "alice/birds@nothing", "--out", "other")
    assert "leave '@v1' out" in fails(capsys, "push", "runs/prior", "alice/birds@v1")


def test_without_a_network_what_was_fetched_before_is_taken(hub, runs, monkeypatch):
    pushed(hub, runs)
    before = pictures("alice/birds")
    pull._fetched_once.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="Taking what was fetched before"):
        assert pictures("alice/birds") == before


def test_without_the_extra_the_install_line_is_named(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    pull._fetched_once.cache_clear()
    for command in (["generate", "alice/birds", "x"], ["push", "runs/prior", "alice/birds"], ["pull", "alice/birds"]):
        assert "pip install 'tessera-t2i[hub]'" in fails(capsys, *command)


def test_a_tokenizer_on_the_hub_trains_a_prior(hub, runs, folder, capsys):
    main(["push", "runs/vae", "alice/vae"])
    shutil.rmtree(runs / "vae")
    main(["train", "t2i-xs-64", "--out", "runs/next", "--tokens.image", "alice/vae", "--tokens.vocab", "300", "--data.path", str(folder),
          "--model.transformer.dim", "16", "--model.transformer.depth", "1", "--model.transformer.heads", "1", *SMALL])  # fmt: skip
    found = manifest.read(runs / "next")
    assert found
    assert found.unknown == ()
    assert set(found.having(manifest.TOKENIZER)) == set(found.having(manifest.LEARNED)), "its manifest came with it"
    main(["data", "encode", str(folder), "codes", "--tokens", "alice/vae", "--views", "1"])
    main(["import", "alice/vae", "runs/finer"])
    assert manifest.read(runs / "finer").having(manifest.BEFORE) == found.having(manifest.TOKENIZER)


def test_the_card_of_the_hub_keeps_what_was_written_there(hub, runs, capsys):
    repo = pushed(hub, runs)
    card = repo.files["README.md"].decode()
    assert "tessera generate alice/birds" in card
    assert str(runs) not in card
    repo.edit(README__md=card.replace("license: unknown", "license: cc-by-4.0").encode() + b"\nDrawn in spring.\n")
    main(["push", "runs/prior", "alice/birds"])
    again = repo.files["README.md"].decode()
    assert "license: cc-by-4.0" in again
    assert "Drawn in spring." in again
    repo.edit(README__md=b"# My own words")
    main(["push", "runs/prior", "alice/birds", "--license", "mit"])
    assert repo.files["README.md"] == b"# My own words"
    assert "is not a card that Tessera wrote" in capsys.readouterr().out


def test_an_evaluation_refreshes_the_card_and_goes_along(hub, runs, capsys):
    assert "It was not evaluated" in (runs / "prior" / "README.md").read_text("utf-8")
    main(
        [
            "evaluate",
            "runs/prior",
            "--features",
            "none",
            "--count",
            "8",
            "--seeds",
            "1",
            "--ranked",
            "2",
            "--device",
            "cpu",
        ]
    )
    text = (runs / "prior" / "README.md").read_text("utf-8")
    assert "| nats per code ↓ |" in text
    assert "**It " in text
    files = pushed(hub, runs).files
    assert json.loads(files["evaluation/evaluation.json"])["settings"]["features"] == "none"
    assert "| nats per code ↓ |" in files["README.md"].decode()
    assert not [path for path in files if path.endswith(".html") or "kept" in path]


def test_a_run_of_a_release_without_any_of_this_can_be_pushed(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    old = run_folder(tmp_path / "runs" / "old")
    main(["push", str(old), "alice/old", "--license", "mit"])
    card = hub.repos["alice/old"].files["README.md"].decode()
    assert "license: mit" in card
    assert "trained before Tessera kept a manifest" in card
    main(["pull", "alice/old", "--out", "runs/new"])
    one, other = (tessera.load(run)("1 2 3", seed=5)[0].codes for run in ("runs/old", "runs/new"))
    assert one == other


def test_places_on_this_machine_become_words():
    from tessera.hub.parcel import _name

    assert _name("/home/alice/birds") == "birds"
    assert _name("pipe:aws s3 cp s3://secret/x -") == "elsewhere"
    assert _name("s3://key@bucket/x.tar") == "elsewhere"
    assert _name("hf:/home/alice/set") == "elsewhere"
    assert _name("hf:alice/set@train") == "hf:alice/set@train"
    assert _name("bpe") == "bpe"
    assert _name("") == ""


def test_the_settings_that_are_sent_name_no_place(hub, runs):
    repo = pushed(hub, runs)
    settings = [
        json.loads(content)
        for path, content in repo.files.items()
        if path.endswith(("run.json",)) or path == "config.json"
    ]
    assert len(settings) == 2
    for found in settings:
        assert found["data"]["path"] == "birds"
        assert found["tokens"]["image"] == "vae"
        assert found["out"] == ""


def test_the_client_is_asked_for_only_where_a_name_needs_it(monkeypatch, runs):
    monkeypatch.setattr(Client, "find", lambda *args: pytest.fail("a hub was asked"))
    assert pictures("runs/prior")
    assert names.wanted("runs/prior") is None
