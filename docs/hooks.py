"""What the site takes from the code when it is built, so that nothing of it is typed by hand.

Lines of a page of the form `<!-- name: argument -->` are replaced:

    options: PACKAGE       the help of each of the package's commands
    reference: PACKAGE     the public modules, for mkdocstrings
    experiments: PACKAGE   the tables and figures that can be reproduced, and what they cost
    reports: PACKAGE       what was reproduced and is kept: pictures, and tables with every figure
    results: FILE          the tables that a script wrote into a README, between its two markers
    scripts: FOLDER        what each script there says of itself

Formulas become MathML, which browsers draw without any script; one that cannot be read stops the build.
"""

import ast
import contextlib
import html
import importlib
import io
import os
import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import mock

from gt_core.reproduce.costs import in_hours
from gt_core.reproduce.experiment import cells_of, cost_of
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

# A command whose options depend on what it is to learn is shown once for each.
VARIANTS = {name: ([], ["--game", "iterated-pgg"]) for name in ("mediated-marl-train", "mediated-marl-sweep")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site the pictures of the reports that are kept."""
    for picture in sorted(ROOT.glob("packages/*/results/reproduction/*/*.png")):
        files.append(File.generated(config, picture_name(picture), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the lines that name a part of the code."""
    parts = {
        "options": options,
        "reference": reference,
        "experiments": experiments,
        "reports": reports,
        "results": results,
        "scripts": scripts,
    }
    line = re.compile(rf"^<!-- ({'|'.join(parts)}): (\S+) -->$", re.MULTILINE)
    return line.sub(lambda match: parts[match[1]](match[2]), markdown)


def on_page_content(content: str, **_: object) -> str:
    r"""Turn the formulas that arithmatex marked, \(...\) and \[...\], into MathML."""
    inline = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>')
    block = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
    content = inline.sub(lambda match: formula(match[1], "inline"), content)
    return block.sub(lambda match: formula(match[1], "block"), content)


def formula(text: str, display: str) -> str:
    """One formula in MathML."""
    mathml = convert(html.unescape(text).strip(), display=display)
    if "\\" in mathml:  # a command that the converter does not know is left as it is
        raise RuntimeError(f"the formula {text} cannot be read")
    return mathml


def options(package: str) -> str:
    """What `--help` prints, command by command."""
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]
    sections = []
    for name, target in project["scripts"].items():
        entry = EntryPoint(name, target, "console_scripts")
        for arguments in VARIANTS.get(name, ([],)):
            title = " ".join([f"## {name}", *arguments])
            sections.append(f"{title}\n\n```text\n{printed_help(entry, arguments)}\n```\n")
    return "\n".join(sections)


def printed_help(entry: EntryPoint, arguments: list[str]) -> str:
    """The help of one command, as on a terminal of 100 columns."""
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [entry.name, *arguments, "--help"]),
        mock.patch.dict(os.environ, COLUMNS="100", NO_COLOR="1"),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        entry.load()()
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    if not lines or not lines[0].startswith("usage:"):
        raise RuntimeError(f"{entry.name} --help printed no usage")
    return "\n".join(lines)


def reference(package: str) -> str:
    """All modules of a package that have a public name."""
    source = ROOT / "packages" / package / "src"
    modules = [path for path in sorted(source.rglob("*.py")) if "__all__" in path.read_text()]
    names = [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    return "\n\n".join(f"::: {name}" for name in sorted(names))


def experiments(package: str) -> str:
    """The command of each table or figure, what it shows, and what its runs cost on two cores."""
    module = importlib.import_module(f"{package.replace('-', '_')}.reproduction")
    rows = ["| | | scale | runs | hours of two cores | runs never timed |", "|---|---|---|---|---|---|"]
    for one in module.EXPERIMENTS:
        for scale in ("laptop", "full"):
            lines = one.lines(scale, Path("nowhere"))
            cells = [*cells_of(lines, needs=True), *cells_of(lines)]
            seconds, unknown = cost_of(one, cells)
            command = f"`{package}-reproduce --{one.kind} {one.name}`"
            hours = in_hours(seconds / 2) if seconds else ""
            rows.append(f"| {command} | {one.title} | {scale} | {len(cells)} | {hours} | {unknown or ''} |")
    return "\n".join(rows)


def reports(package: str) -> str:
    """Each report's picture, and its table to unfold."""
    sections = []
    for report in sorted((ROOT / "packages" / package / "results" / "reproduction").glob("*/report.md")):
        title, *text = report.read_text().removeprefix("# ").split("\n")
        scale = report.parent.name.rpartition("-")[2]
        pictures = [f"![{title}]({picture_name(picture)})" for picture in sorted(report.parent.glob("*.png"))]
        table = "\n".join(f"    {line}".rstrip() for line in text)
        sections.append("\n\n".join([f"### {title}, {scale}", *pictures, f'??? note "The table"\n{table}']))
    return "\n\n".join(sections)


def picture_name(file: Path) -> str:
    """Where the site has a report's picture."""
    return f"reports-{file.parts[-5]}-{file.parts[-2]}-{file.name}"


def results(file: str) -> str:
    """The tables between `<!-- ... writes ... from here -->` and `<!-- to here ... -->`."""
    tables = re.findall(r"<!-- [^>]* from here -->\n(.*?)\n<!-- to here", (ROOT / file).read_text(), re.DOTALL)
    if not tables:
        raise RuntimeError(f"{file} holds no table between '<!-- ... from here -->' and '<!-- to here -->'")
    return "\n\n".join(tables)


def scripts(folder: str) -> str:
    """Each script's docstring, under its name."""
    found = sorted((ROOT / folder).glob("*.py"))
    return "\n\n".join(
        f"### {path.name}\n\n```text\n{ast.get_docstring(ast.parse(path.read_text()))}\n```" for path in found
    )
