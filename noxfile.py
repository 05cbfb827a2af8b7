"""Every check of the workspace: `uv run nox` runs the tests of all packages, the linters and the type checker.

Sessions run on the Python that runs nox; `--python 3.12` chooses another one for the tests.
What follows `--` goes to pytest: `uv run nox -s test-rmdp -- -k assignment`.
"""

import email
import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
PACKAGES = ("gt-core", "regretformer", "mediated-marl", "rmdp")
PYTHONS = ("3.11", "3.12", "3.13")
OLDEST = PYTHONS[0]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
DEFAULT = RUNNING if RUNNING in PYTHONS else PYTHONS[-1]

# The tests' tensors are small: a second thread costs more than it brings, and sums then depend on the machine.
# Some tests start many processes: where bytecode is not kept, each of them would compile torch again.
TEST_ENV = {
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "",
}

# gt-core has no command. This uses it: minimise x^2 with x >= 1, where the multiplier is 2.
USE_GT_CORE = """
from gt_core.dual import Multiplier, ProjectedAscent
multiplier = Multiplier(0.0, ProjectedAscent(step_size=0.5))
for _ in range(200):
    multiplier.ascend(1 - multiplier.value / 2)
assert abs(multiplier.value.item() - 2) < 1e-9, multiplier
"""

# The options with which a training command learns for seconds, where that is not its preset `smoke`.
SMOKE = {
    "mediated-marl-train": ["--preset", "pd", "--iterations", "20", "--seeds", "2"],
    "regretformer-distill": ["--preset", "smoke", "--out-dir", "student"],
}
# These print nothing that a program would read, or leave it in a file.
DRAWS = {"mediated-marl-plot", "regretformer-distill"}
# One reads what others published instead of a run, the others need an extra that is not installed here.
ELSEWHERE = {"regretformer-import", "regretformer-export", "rmdp-video"}

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"  # `uv sync` is exact: what an earlier run left behind is removed
nox.options.pythons = [DEFAULT]
nox.options.sessions = [*(f"test-{package}" for package in PACKAGES), "lint", "typecheck", "docs"]


def sync(session: nox.Session, *arguments: str) -> None:
    """Make the session's environment hold what the lock says of these arguments, and nothing else."""
    environment = session.virtualenv.location
    command = ["uv", "sync", "--locked", "--no-default-groups", f"--python={environment}", *arguments]
    session.run_install(*command, env={"UV_PROJECT_ENVIRONMENT": environment})


def run_tests(session: nox.Session, package: str) -> None:
    """Run one package's tests where only it, gt-core and the test group are installed."""
    sync(session, "--package", package, "--group", "test")
    pytest(session, package)


def pytest(session: nox.Session, package: str) -> None:
    """Run one package's tests in the environment as it is."""
    session.run("pytest", f"packages/{package}/tests", *session.posargs, env=TEST_ENV)


@nox.session(name="test-gt-core", python=PYTHONS)
def test_gt_core(session: nox.Session) -> None:
    """Test gt-core alone."""
    run_tests(session, "gt-core")


@nox.session(name="test-regretformer", python=PYTHONS)
def test_regretformer(session: nox.Session) -> None:
    """Test regretformer beside gt-core alone."""
    run_tests(session, "regretformer")


@nox.session(name="test-mediated-marl", python=PYTHONS)
def test_mediated_marl(session: nox.Session) -> None:
    """Test mediated-marl beside gt-core alone."""
    run_tests(session, "mediated-marl")


@nox.session(name="test-rmdp", python=PYTHONS)
def test_rmdp(session: nox.Session) -> None:
    """Test rmdp beside gt-core alone."""
    run_tests(session, "rmdp")


@nox.session(python=DEFAULT)
def lint(session: nox.Session) -> None:
    """Check style, format, import direction, declared dependencies, workflows, and README against .ci/run."""
    sync(session, "--only-group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # The import direction has no exceptions, so no comment may silence it.
    session.run("ruff", "check", "--select", "TID251", "--ignore-noqa", "packages")
    for package in PACKAGES:
        check_dependencies(session, package)
    session.run("zizmor", "--offline", "--persona", "pedantic", "--no-progress", ".github")
    check_test_command(session)


def check_dependencies(session: nox.Session, package: str) -> None:
    """Refuse an import that a package owes to another package's dependencies, and a dependency that it does not use."""
    folder = f"packages/{package}"
    arguments = [f"{folder}/src", "--config", f"{folder}/pyproject.toml", "--no-ansi"]
    # TensorBoard and what the ONNX exporter needs are used through torch.
    session.run("deptry", *arguments, "--per-rule-ignores", "DEP002=tensorboard|onnx|onnxscript", silent=True)


def check_test_command(session: nox.Session) -> None:
    """Refuse a README whose test command is not the line that .ci/run ends with."""
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    readme = ROOT / "README.md"
    if not readme.is_file() or command not in map(str.strip, readme.read_text().splitlines()):
        session.error(f"README.md lacks the line that .ci/run runs: {command}")


@nox.session(python=DEFAULT)
def typecheck(session: nox.Session) -> None:
    """Check the types of all sources strictly, every dependency and extra installed."""
    sync(session, "--all-packages", "--all-extras", "--group", "types")
    session.run("mypy", *(f"packages/{package}/src" for package in PACKAGES))


@nox.session(python=DEFAULT)
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, every warning an error."""
    sync(session, "--all-packages", "--group", "docs")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={**TEST_ENV, "NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=DEFAULT, reuse_venv=False, venv_params=["--seed"])
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def standalone(session: nox.Session, package: str) -> None:
    """Build a package and gt-core, install it by pip in an empty environment, and use it."""
    folder = Path(session.create_tmp())
    for name in sorted({"gt-core", package}):
        session.run("uv", "build", "--no-sources", "--package", name, "--out-dir", str(folder / "dist"))
    project = nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")["project"]
    check_wheel(session, folder / "dist", project)

    session.chdir(folder)  # away from the sources: only what was installed can be imported
    session.run("pip", "install", "--quiet", "--find-links", "dist", f"{package}=={project['version']}")
    session.run("pip", "check")
    session.run("python", "-c", f"import {package.replace('-', '_')}")
    commands = sorted(project.get("scripts", {}))
    for command in commands:
        session.run(command, "--help", silent=True)
    if package == "gt-core":
        session.run("python", "-c", USE_GT_CORE)
    else:
        learn_and_judge(session, f"{package}-train", commands)
    shutil.rmtree(session.virtualenv.location)  # gigabytes that no later run would use


def check_wheel(session: nox.Session, dist: Path, project: dict[str, object]) -> None:
    """Refuse a wheel without type marker or licence, or whose dependencies name a path or no range of gt-core."""
    module = str(project["name"]).replace("-", "_")
    (wheel,) = dist.glob(f"{module}-{project['version']}-*.whl")
    information = f"{module}-{project['version']}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        metadata = email.message_from_bytes(archive.read(f"{information}/METADATA"))
    for file in (f"{module}/py.typed", f"{information}/licenses/LICENSE"):
        if file not in files:
            session.error(f"{wheel.name} lacks {file}")
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    if paths := [str(requirement) for requirement in requirements if requirement.url]:
        session.error(f"{wheel.name} depends on a path or address: {paths}")
    bounds = {clause.operator for r in requirements if r.name == "gt-core" for clause in r.specifier}
    if module != "gt_core" and bounds != {">=", "<"}:
        session.error(f"{wheel.name} must depend on gt-core from a version on and below another, not {bounds or 'any'}")


def learn_and_judge(session: nox.Session, train: str, commands: list[str]) -> None:
    """Learn for seconds, then let the other commands work on the run; with --json they print JSON and nothing else."""
    session.run(train, *SMOKE.get(train, ["--preset", "smoke"]), "--out-dir", "run")
    for command in commands:
        if command.endswith("-sweep"):
            smoke = SMOKE.get(train, ["--preset", "smoke"])
            (cell,) = json.loads(str(session.run(command, *smoke, "--json", silent=True, stderr=None)))
            if cell["status"] != "finished":
                session.error(f"{command} ended with {cell}")
        elif command.endswith("-reproduce"):
            first, *_ = json.loads(str(session.run(command, "--list", "--json", silent=True, stderr=None)))
            smallest = [*first["option"].split(), "--scale", "smoke", "--json"]
            json.loads(str(session.run(command, *smallest, silent=True, stderr=None)))
        elif command in DRAWS:
            session.run(command, "run", *SMOKE.get(command, []))
        elif command not in {train, *ELSEWHERE}:
            output = str(session.run(command, "run", "--json", silent=True, stderr=None))
            if not (output.startswith(("{", "[")) and json.loads(output)):
                session.error(f"{command} --json printed no JSON: {output}")


@nox.session(python=DEFAULT)
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def minimums(session: nox.Session, package: str) -> None:
    """Test a package on the oldest Python with the lowest version of each direct dependency."""
    environment = session.virtualenv.location
    session.run_install("uv", "venv", "--quiet", "--clear", f"--python={OLDEST}", environment)
    chosen = ["--editable", f"packages/{package}", "--group", f"packages/{package}/pyproject.toml:test"]
    session.run_install("uv", "pip", "install", f"--python={environment}", "--resolution=lowest-direct", *chosen)
    pytest(session, package)


@nox.session(python=DEFAULT)
def bench(session: nox.Session) -> None:
    """Run every script in benchmarks/; each prints its own table."""
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    if not scripts:
        session.skip("benchmarks/ holds no script yet")
    sync(session, "--all-packages", "--all-extras", "--group", "test")  # what we compare with is among the test tools
    for script in scripts:
        session.run("python", str(script), *session.posargs)


@nox.session(python=DEFAULT)
def release(session: nox.Session) -> None:
    """Build into dist/ the package that a tag such as `-- rmdp-v0.2.0` names, if version and changelog agree."""
    if len(session.posargs) != 1:
        session.error("name the tag to release: nox -s release -- rmdp-v0.2.0")
    package, _, version = session.posargs[0].rpartition("-v")
    if package not in PACKAGES:
        session.error(f"{session.posargs[0]} is no tag of {', '.join(PACKAGES)}; a tag reads rmdp-v0.2.0")
    folder = ROOT / "packages" / package
    project = nox.project.load_toml(folder / "pyproject.toml")["project"]
    if project["version"] != version:
        session.error(f"the tag says {version}, packages/{package}/pyproject.toml says {project['version']}")
    if not re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", (folder / "CHANGELOG.md").read_text(), re.M):
        session.error(f"packages/{package}/CHANGELOG.md lacks the heading '## {version} - YYYY-MM-DD'")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("uv", "build", "--no-sources", "--package", package, "--out-dir", "dist")
    check_wheel(session, ROOT / "dist", project)
