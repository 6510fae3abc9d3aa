"""Kinds of parts by name, and settings under earlier names: in config.json, in TOML, and on the command line."""

import dataclasses
import json
import warnings

import pytest

from tessera.cli import main
from tessera.cli.parts import chosen
from tessera.config import FSQ, DVAEConfig, Gumbel, Lookup, TrainConfig, to_dict, train_config
from tessera.config.merging import differences, merge, read_toml
from tessera.config.presets import preset
from tessera.config.renamed import RENAMED
from tessera.errors import ConfigError
from tessera.models import saved

OLD = {
    "kind": "dvae", "pixels": 64, "channels": 3, "quantizer": "fsq", "levels": [8, 8, 8], "codes": 512, "code_dim": 256,
    "layers": 2, "resblocks": 1, "hidden": 64, "reconstruction": "mse", "kl_weight": 0.0, "temperature": 1.0,
    "temperature_end": 0.1, "straight_through": False, "reinmax": False, "mean": [0.5, 0.5, 0.5, 0.0],
    "std": [0.5, 0.5, 0.5, 1.0],
}  # fmt: skip
"""A model as 0.1 wrote it."""
OLD_GUMBEL = {**OLD, "quantizer": "gumbel", "codes": 64, "code_dim": 8, "kl_weight": 0.5, "straight_through": True}


def test_what_earlier_releases_wrote_is_read_in_silence():
    with warnings.catch_warnings(action="error"):
        assert train_config({"model": OLD}).model == DVAEConfig(layers=2, quantizer=FSQ(levels=(8, 8, 8)))
        wanted = Gumbel(codes=64, code_dim=8, kl_weight=0.5, straight_through=True)
        assert train_config({"model": OLD_GUMBEL}).model == DVAEConfig(layers=2, quantizer=wanted)


@pytest.mark.parametrize("old", [OLD, OLD_GUMBEL], ids=["fsq", "gumbel"])
def test_a_model_that_an_earlier_release_saved_is_read(old, tmp_path):
    """Its config.json stays as it was written, and so does the digest that its weights carry of it."""
    small = {**old, "pixels": 16, "hidden": 4}
    model = saved.network(train_config({"model": small}).model)
    saved.write(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(small))
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "weights.safetensors")
    save_file(weights, tmp_path / "weights.safetensors", {"config": saved.digest(small)})
    again = saved.read(tmp_path)
    assert again.config == model.config
    assert all((a == b).all() for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_earlier_names_in_toml_are_understood_with_a_notice(tmp_path):
    told: list[str] = []
    (tmp_path / "a.toml").write_text('[model]\nquantizer = "gumbel"\ncodes = 64\nkl-weight = 0.5\nlevels = [8, 8]\n')
    found = merge(TrainConfig(), read_toml(tmp_path / "a.toml"), notice=told.append)
    assert isinstance(found.model, DVAEConfig)
    assert found.model.quantizer == Gumbel(codes=64, kl_weight=0.5)
    assert told == [
        "model.codes is now called model.quantizer.codes.",
        "model.kl_weight is now called model.quantizer.kl_weight.",
        "model.levels belongs to model.quantizer fsq; this is gumbel, so it has no effect.",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('quantizer = "lookup"', Lookup()),
        ('[model.quantizer]\nkind = "lookup"\ncodes = 9', Lookup(codes=9)),
        ("[model.quantizer]\nlevels = [3, 3]", FSQ(levels=(3, 3))),
        ('quantizer = "fsq"', FSQ(levels=(8, 8, 8))),  # the preset's: it is of this kind already
        ("levels = [3, 3]\nquantizer = {levels = [4, 4]}", FSQ(levels=(4, 4))),  # the name of now wins
    ],
)
def test_a_kind_is_chosen_in_toml(text, wanted, tmp_path):
    (tmp_path / "a.toml").write_text(f"[model]\n{text}\n")
    model = merge(preset("dvae-s-64"), read_toml(tmp_path / "a.toml")).model
    assert isinstance(model, DVAEConfig)
    assert model.quantizer == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("gumble", r"model\.quantizer is 'gumble'; did you mean 'gumbel'\? Allowed: fsq, gumbel"),
        ({"kind": "fsq", "codes": 3}, r"no setting 'model\.quantizer\.codes'"),
        ({"kind": "gumbel", "codes": 1}, r"model\.quantizer\.codes is 1; it must be at least 2"),
        (5, r"model\.quantizer is 5; it must be a table"),
        ({"kind": ["fsq"]}, r"model\.quantizer is \['fsq'\]"),
    ],
)
def test_a_wrong_kind_is_a_sentence(changes, says):
    with pytest.raises(ConfigError, match=says):
        merge(TrainConfig(), {"model": {"quantizer": changes}})


def words(*args: str) -> tuple[DVAEConfig, list[str]]:
    config, rest = chosen(preset("dvae-s-64"), list(args))
    assert isinstance(config.model, DVAEConfig)
    return config.model, rest


def test_flags_choose_a_kind_and_then_its_settings():
    model, rest = words("--steps", "3", "--model.quantizer", "gumbel", "--model.quantizer.codes", "9")
    assert model.quantizer == Gumbel()
    assert rest == ["--steps", "3", "--model.quantizer.codes", "9"]
    assert words("--model.quantizer=lookup")[0].quantizer == Lookup()
    with pytest.raises(ConfigError, match="needs a name"):
        words("--model.quantizer")


def test_flags_under_earlier_names_are_understood_with_a_notice():
    with pytest.warns(UserWarning, match=r"model.levels is now called model.quantizer.levels"):
        assert words("--model.levels", "3", "3")[1] == ["--model.quantizer.levels", "3", "3"]
    with pytest.warns(UserWarning, match=r"model.(code-dim|straight-through) is now called"):
        rest = words("--model.code_dim=7", "--model.quantizer", "gumbel", "--model.no-straight-through")[1]
    assert rest == ["--model.quantizer.code-dim=7", "--model.quantizer.no-straight-through"]
    with pytest.warns(UserWarning, match=r"model.codes belongs to model.quantizer gumbel; this is fsq"):
        assert words("--model.codes", "7", "--steps", "2")[1] == ["--steps", "2"]


def test_every_earlier_name_leads_to_a_setting_of_now():
    for names in RENAMED.values():
        for name, moved in names.items():
            part, _, leaf = moved.to.rpartition(".")
            base = merge(DVAEConfig(), {part: moved.kind})
            assert leaf in {f.name for f in dataclasses.fields(getattr(base, part))}, name


def resolved(capsys, *args: str) -> dict:
    main(["train", "dvae-s-64", "--data.path", "x", "--dry-run", *args])
    return json.loads(capsys.readouterr().out)["model"]["quantizer"]


def test_the_command_line_resolves_quantizers(capsys, tmp_path):
    assert resolved(capsys) == {"kind": "fsq", "levels": [8, 8, 8], "bound": "tanh"}
    assert resolved(capsys, "--model.quantizer.levels", "8", "5", "5", "5")["levels"] == [8, 5, 5, 5]
    found = resolved(capsys, "--model.quantizer", "gumbel", "--model.quantizer.codes", "99")
    assert (found["kind"], found["codes"], found["code_dim"]) == ("gumbel", 99, 256)
    (tmp_path / "a.toml").write_text('[model]\nquantizer = "lookup"\n')
    found = resolved(capsys, "--config", str(tmp_path / "a.toml"), "--model.quantizer.commitment", "0.5")
    assert (found["kind"], found["commitment"]) == ("lookup", 0.5)
    with pytest.warns(UserWarning, match="now called"):
        assert resolved(capsys, "--model.levels", "7", "7")["levels"] == [7, 7]
    with pytest.raises(SystemExit):
        main(["train", "dvae-s-64", "--model.quantizer", "gumbl", "--dry-run"])
    assert "did you mean 'gumbel'" in capsys.readouterr().err


def test_help_names_the_quantizers(capsys):
    with pytest.raises(SystemExit):
        main(["train", "dvae-s-64", "--help"])
    out = capsys.readouterr().out
    assert "--model.quantizer NAME" in " ".join(out.split())
    assert "--model.quantizer.levels" in out


def test_two_kinds_differ_in_one_line():
    old, new = train_config({"model": OLD}), train_config({"model": OLD_GUMBEL})
    assert [line.partition(":")[0] for line in differences(old, new)] == ["model.quantizer"]
    assert train_config(json.loads(json.dumps(to_dict(new)))) == new
