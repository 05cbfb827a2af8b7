"""The README's examples run, and print what they say."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_readme_example_prints_what_it_says(code, capsys):
    namespace = {"__name__": "readme"}
    if "ParallelArena(Chores" in code:  # the block before makes the environment that this one trains in
        exec(compile(BLOCKS[BLOCKS.index(code) - 1], str(README), "exec"), namespace)
    exec(compile(code, str(README), "exec"), namespace)
    promised = [
        comment.split(":")[0].strip()
        for line in code.splitlines()
        if line.startswith("print(")
        for comment in [line.rsplit("# ", 1)[1]]
    ]
    assert capsys.readouterr().out.splitlines() == promised


def test_readme_has_its_examples():
    assert len(BLOCKS) == 4
