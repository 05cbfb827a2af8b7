import pytest

from gt_core.readme import replace_between, replace_line


def test_what_stands_between_marks_is_replaced() -> None:
    assert replace_between("a <b> old </b> c", "<b>", "</b>", "new") == "a <b>new</b> c"


@pytest.mark.parametrize("text", ["no mark", "<b> twice <b> </b>", "<b> no end"])
def test_marks_must_be_there_once(text: str) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        replace_between(text, "<b>", "</b>", "new")


def test_the_line_with_the_mark_is_replaced() -> None:
    assert replace_line("one\ntwo (!)\nthree", "(!)", r"2 \1 (!)") == "one\n2 \\1 (!)\nthree"
