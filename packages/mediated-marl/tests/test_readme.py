"""The README's examples run, and print what they say."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_readme_example_prints_what_it_says(code, capsys):
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})
    promised = [
        comment.split(":")[0].strip()
        for line in code.splitlines()
        if line.startswith("print(")
        for comment in [line.rsplit("# ", 1)[1]]
    ]
    assert capsys.readouterr().out.splitlines() == promised


def test_readme_has_its_examples():
    assert len(BLOCKS) == 2
