from pathlib import Path

import pytest

from gt_core import pretrained
from gt_core.errors import InputError
from gt_core.files import write_json

ABOUT = {"version_python": "3.11", "hardware_cpu": "an abacus", "hardware_cores": 1}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that ships two runs; we are elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(pretrained.resources, "files", lambda package: tmp_path / package)
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "picture.png", "model/weights"):
        (run / name).write_bytes(name.encode())
    write_json(run / "versions.json", ABOUT)
    write_json(run / "cost.json", {"seconds": 12.34})
    files = pretrained.contents(run, pretrained.card("one", "learn", run, "| 1 |\n"))
    pretrained.write(tmp_path / "learner" / "pretrained", {"one": files, "two": files})
    return tmp_path / "learner" / "pretrained"


def test_config_result_model_and_card_ship(shelf: Path) -> None:
    assert pretrained.names("learner") == ["one", "two"]
    files = pretrained.read(shelf)["one"]
    assert {str(place) for place in files} == {
        *("config.json", "versions.json", "cost.json", "model/weights", "README.md")
    }
    card = files[Path("README.md")].decode()
    assert card.startswith("# one\n\nTrained by `learn --config config.json` in 12 s on an abacus, 1 cores")
    assert card.endswith("| 1 |\n")


def test_writing_again_leaves_no_other_run(shelf: Path) -> None:
    pretrained.write(shelf, {"two": pretrained.read(shelf)["two"]})
    assert pretrained.names("learner") == ["two"]


def test_a_name_stands_for_what_ships_unless_it_is_here(shelf: Path) -> None:
    assert pretrained.located("learner", Path("pretrained/one")) == shelf / "one"
    assert pretrained.located("learner", Path("runs/one")) == Path("runs/one")
    here = Path("pretrained/one")
    here.mkdir(parents=True)
    (here / "config.json").write_text("{}")
    assert pretrained.located("learner", here) == here


@pytest.mark.usefixtures("shelf")
def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="'three' does not ship with learner; it has one, two"):
        pretrained.located("learner", Path("pretrained/three"))
