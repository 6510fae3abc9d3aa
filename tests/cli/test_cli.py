"""The command line, from outside."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from conftest import fails
from tessera.cli import main
from tessera.cli.screen import notice
from tessera.cli.train import profiled
from tessera.generate import sheet


@pytest.mark.parametrize("command", ["", "train", "train t2i-s-64", "generate", "learn", "demo", "show", "data check"])
def test_help_teaches_and_loads_no_torch(command):
    """What makes --help slow is importing torch; the seconds themselves are measured in bench/startup.py."""
    code = f"""
import sys, tessera.cli
try:
    tessera.cli.main({[*command.split(), "--help"]})
except SystemExit as stopped:
    assert stopped.code == 0
print("torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"usage: tessera {command.split()[0] if command else 'COMMAND'}" in out
    assert out.splitlines()[-1] == "False"


@pytest.mark.parametrize("args", [["--help"], ["show", "t2i-xs-64"]])
def test_a_reader_that_goes_away_ends_a_command_without_a_word(args):
    command = [sys.executable, "-m", "tessera", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["lern"], "did you mean 'learn'"),
        (["train", "t2i-s-46"], "did you mean 't2i-s-64'"),
        (["train", "dvae-xs-64", "--optim.lrr", "1"], "--optim.lr"),
        (["train", "dvae-xs-64"], "data.path is empty"),
        (["train", "t2i-xs-64", "--data.path", "x"], "needs an image tokenizer"),
        (["train", "dvae-xs-64", "--data.path", "/nowhere"], "does not exist"),
        (
            ["train", "dvae-xs-64", "--data.path", "x", "--optim.batch", "7", "--optim.accumulate", "2"],
            "positive multiple",
        ),
        (["train", "dvae-xs-64", "--data.path", "x", "--config", "/nowhere.toml"], "cannot be read"),
        (["train"], "Presets:"),
        (["learn"], "tessera learn PICTURES"),
        (["learn", "/nowhere"], "does not exist"),
        (["generate", "/nowhere", "a bird"], "no run folder"),
        (["generate", "/nowhere"], "Say what to draw"),
        (["generate", "--count", "2", "/nowhere", "a bird"], "the names come before the options"),
        (["generate", "/nowhere", "--count", "2", "a bird"], "no run folder"),
        (["generate"], "usage: tessera generate RUN PROMPT [options]"),
        (["generate", "/nowhere", "--cuont", "2", "a bird"], "--count"),
        (["import", "x"], "OUT"),
        (["data", "pack"], "usage: tessera data pack DATA OUT [options]"),
        (["train", "--seed", "4", "t2i-s-64"], "usage: tessera train PRESET|RUN [options]"),
        (["data", "chek", "x"], "did you mean 'check'"),
        (["show", "nothing"], "no preset"),
    ],
)
def test_mistakes_end_in_one_sentence(capsys, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    text = fails(capsys, *args)
    assert says in text
    assert "Traceback" not in text


def test_dry_run_shows_the_merged_settings(capsys, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("steps = 5\nseed = 3\n")
    main(["train", "dvae-xs-64", "--config", str(file), "--seed", "4", "--data.path", "x", "--dry-run"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["seed"], shown["preset"], shown["model"]["kind"]) == (5, 4, "dvae-xs-64", "dvae")


def test_show(capsys):
    main(["show", "t2i-dalle1-256"])
    assert "parameters" in capsys.readouterr().out


def test_train_both_and_generate(capsys, bird_folder, tmp_path):
    """The README's commands for one model at a time, on a toy."""
    short = [
        "--steps",
        "4",
        "--save-every",
        "2",
        "--optim.batch",
        "4",
        "--data.path",
        str(bird_folder),
        "--data.workers",
        "0",
    ]
    small = ["--model.pixels", "16", "--model.hidden", "8", "--model.layers", "2"]
    main(["train", "dvae-xs-64", *short, *small, "--out", str(tmp_path / "vae")])
    main(["train", "t2i-xs-64", *short, "--model.transformer.dim", "64", "--tokens.image", str(tmp_path / "vae"), "--out", str(tmp_path / "prior")])  # fmt: skip
    main(["show", str(tmp_path / "prior")])
    capsys.readouterr()
    out = tmp_path / "out"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("../../etc/passwd\na bird?\n\n")
    main(
        [
            "generate",
            str(tmp_path / "prior"),
            "a bird",
            "--prompts",
            str(prompts),
            "--count",
            "3",
            "--seed",
            "5",
            "--out",
            str(out),
        ]
    )
    pictures = sorted(p.relative_to(out).as_posix() for p in out.rglob("[0-9].png"))
    assert pictures == [f"{f}/{n}.png" for f in ("a_bird", "a_bird_2", "etc_passwd") for n in (5, 6, 7)]
    assert (out / "contact-sheet.png").is_file()
    about = Image.open(out / "a_bird/6.png").text
    assert (about["prompt"], about["seed"], about["run"]) == ("a bird", "6", str(tmp_path / "prior"))
    main(
        [
            "generate",
            str(tmp_path / "prior"),
            "a bird",
            "--seed",
            "6",
            "--count",
            "1",
            "--batch",
            "1",
            "--out",
            str(tmp_path / "again"),
        ]
    )
    assert (tmp_path / "again/a_bird/6.png").read_bytes() == (out / "a_bird/6.png").read_bytes()
    main(["generate", str(tmp_path / "prior"), "a bird", "--prime", str(bird_folder / "00001.png"), "--prime-rows", "1", "--count", "1", "--out", str(tmp_path / "primed")])  # fmt: skip
    import torch

    import tessera
    from tessera.data.pictures import middle_square, read, resized, to_image

    model = tessera.load(str(tmp_path / "prior"))
    original = read(bird_folder / "00001.png")
    small_one = resized(original, middle_square(*original.shape[1:]), 16)[None].float() / 255
    expected = to_image(model.image.decode(model.image.encode(small_one))[0])
    assert torch.equal(
        torch.tensor(list(Image.open(tmp_path / "primed/a_bird/0.png").get_flattened_data())),
        torch.tensor(list(expected.get_flattened_data())),
    )
    assert model("a red bird", count=2, seed=3)[1].codes == model("a red bird", seed=4)[0].codes
    assert fails(capsys, "generate", str(tmp_path / "vae"), "a bird").count("does not draw by itself") == 1
    assert "empty" in fails(capsys, "generate", str(tmp_path / "prior"), " ")


def test_a_warning_of_ours_is_a_sentence_and_others_say_where_they_come_from():
    assert notice("Memory ran out.", UserWarning, sheet.__file__, 7) == "tessera: Memory ran out.\n"
    assert notice("old", UserWarning, "/x/torch.py", 7) == "/x/torch.py:7: UserWarning: old\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "dvae-xs-64", "--data.path", "x", "--seed", "-1"], "seed is -1"),
        (["train", "dvae-xs-64", "--data.path", "x", "--seed", "1e23"], "1e23"),
        (["train", "dvae-xs-64", "--data.path", "x", "--steps", "9" * 5000], "--steps"),
        (["train", "dvae-xs-64", "--data.path", "x", "--optim.lr", "nan"], "optim.lr is nan"),
        (["train", "dvae-xs-64", "--data.path", "x", "--optim.betas", "1", "1"], "optim.betas[0] is 1.0"),
        (["train", "dvae-xs-64", "--data.path", "x", "--model.quantizer.levels"], "model.quantizer.levels is ()"),
        (["train", "dvae-xs-64", "--data.path", "x", "--config"], "Missing value for argument '--config'"),
        (["train", "clip-xs-64", "--data.path", "x", "--model.patch", "0"], "model.patch is 0"),
        (["learn", "x", "--samples", "0"], "samples is 0"),
        (["learn", "x", "--pixels", "-16"], "pixels is -16"),
        (["learn", "x", "--seed", str(2**63 - 1)], "the last seed would be over"),
        (["learn", "x", "--device", "gpu9"], "gpu9"),
        (["demo", "--birds", "0"], "birds is 0"),
        (["demo", "--questions", "801"], "questions is 801; it must be at most 800"),
        (["demo", "--budget", "soon"], "not a duration"),
        (["demo", "--device", "gpu9"], "gpu9"),
        (["data", "pack", "x", "y", "--per-shard", "0"], "per-shard is 0"),
        (["data", "encode", "x", "y", "--tokens", "z", "--crop", "nan"], "crop is nan"),
        (["data", "encode", "x", "y", "--tokens", "z", "--views", "0"], "views is 0"),
    ],
)  # fmt: skip
def test_settings_are_held_against_their_ranges_before_anything_is_read_or_written(
    capsys, tmp_path, monkeypatch, args, says
):
    monkeypatch.chdir(tmp_path)
    text = fails(capsys, *args)
    assert says in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(".tessera")]


def test_the_demo_leaves_a_folder_of_the_users_alone(capsys, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/00000.png").write_text("of an earlier demo")
    (tmp_path / "pictures/holiday.png").write_text("mine")
    assert "Tessera did not begin it" in fails(capsys, "demo", "--out", str(tmp_path))
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["00000.png", "holiday.png"]


def test_a_profile_is_written_to_a_folder_of_its_own(tmp_path, capsys):
    (tmp_path / "run-profile").mkdir()
    command = ["train", "dvae-xs-64", "--data.path", "x", "--out", str(tmp_path / "run"), "--profile", "--dry-run"]
    main(command)
    assert json.loads(capsys.readouterr().out)["out"] == str(tmp_path / "run-profile-2")
    profiled(lambda: torch.ones(3) + 1, tmp_path / "run-profile")
    assert sorted(p.name for p in (tmp_path / "run-profile").iterdir()) == ["profile.txt", "trace.json"]
    assert "slowest operations of 8 steps" in capsys.readouterr().out
