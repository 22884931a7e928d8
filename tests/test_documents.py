"""The documents: every link leads somewhere, and every command could be typed as it stands."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPOSITORY, TUTORIAL, Scripts

import common
from common.pipeline.planned_stages import planned_stages
from common.sources.case_table import COLUMNS

README = REPOSITORY / "README.md"
DOCUMENTS = [
    README,
    *(REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "common/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
LONGEST_LINE, LONGEST_README = 110, 200
# Programs of others, whose words are not checked
FOREIGN = {"git", "mypy", "nvtop", "pip", "podman", "pre-commit", "rm", "ruff", "source", "tensorboard"}
FOREIGN_FLAGS = {"--logdir", "--durations", "--shm-size", "--build-arg", "--device", "--gpus", "--userns"}
LAUNCHERS = {"environment.sh", "launch.sh"}  # named in scripts, but not what they run
OWN_WORDS = ("demo.sh", "test.sh")  # these read their arguments themselves

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


# --- reading them ----------------------------------------------------------------------------------


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """All but the fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What GitHub names the headings of a document."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(slug + (f"-{found.count(slug)}" if slug in found else ""))
    return set(found)


class Command(NamedTuple):
    """A command of a document: how it is written, the folder it is typed in, and its words."""

    text: str
    folder: Path
    words: list[str]


def commands(text: str) -> Iterator[Command]:
    """The commands of the shell blocks; each block starts in the root of the repository."""
    for block in blocks(text, "sh"):
        folder = REPOSITORY
        for line in block.splitlines():
            for part in re.split(r"&&|;", line.partition("#")[0]):
                words = [word for word in shlex.split(part) if not re.match(r"[A-Z_]+=", word)]
                if not words:
                    continue
                if words[0] == "cd":
                    folder = (folder / words[1]).resolve()
                    assert folder.is_dir(), line
                else:
                    yield Command(part.strip(), folder, words)


def programs(script: Path) -> set[Path]:
    """The Python files that a script of ours starts: itself, or those that its lines name."""
    assert script.is_file(), f"there is no {script}"
    if script.suffix == ".py":
        return {script}
    lines = [line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")]
    if phase := re.search(r"--phase (\S+)", "\n".join(lines)):  # its trainings, which get the flags
        return {program for s in planned_stages(phase[1]) for program in programs(REPOSITORY / s.script)}
    text = re.sub(r"\$\w+", "", "\n".join(lines))  # a folder in a variable is the script's own
    names = re.findall(r"[\w./]*\w\.(?:py|sh)\b", text)
    named = [script.parent / name.lstrip("/") for name in names if Path(name).name not in LAUNCHERS]
    return {program for path in named for program in programs(path)}


def script_of(command: Command) -> Path | None:
    """The script of ours that a command starts, or None: it is another's program.

    A job file names it, or is given the folder of the stage whose `train.sh` it starts.
    """
    first, *words = command.words
    if first in FOREIGN or words[:1] == ["-m"]:
        return None
    assert first in ("bash", "python", "sbatch"), command.text
    script = command.folder / words[0]
    if first == "sbatch":
        assert script.is_file(), command.text
        named = re.search(r"^bash ([\w/]+\.sh)", script.read_text(), re.MULTILINE)
        return command.folder / (named[1] if named else f"{words[1]}/train.sh")
    return script


@pytest.fixture(scope="module")
def ours() -> list[tuple[Command, Path]]:
    """The commands of all documents that start a script of ours, and the script."""
    found = [(command, script_of(command)) for path in DOCUMENTS for command in commands(read(path))]
    return [(command, script) for command, script in found if script]


# --- links and lines -------------------------------------------------------------------------------


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    text = prose(document)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


def test_readme_leads_to_every_document() -> None:
    links = set(re.findall(r"\]\(([^)#\s]+)\)", prose(README)))
    assert {path.relative_to(REPOSITORY).as_posix() for path in DOCUMENTS[1:]} <= links


@each_document
def test_lines_are_short(document: Path) -> None:
    lines = read(document).splitlines()
    assert max(map(len, lines)) <= LONGEST_LINE
    assert document != README or len(lines) <= LONGEST_README


@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    folders = "common|benchmarks|tests|docs|step[123]_[a-z_]+"
    for name in re.findall(rf"`((?:{folders})/[\w./]+\.(?:py|sh|sbatch|md|png|toml|j2))`", prose(document)):
        assert (REPOSITORY / name).is_file(), f"{document.name}: {name}"


# --- commands --------------------------------------------------------------------------------------

# Each script's own help, as `python SCRIPT --help` prints it; in one process, since importing takes seconds
_HELP = """
import contextlib, io, json, os, runpy, sys

found = {}
for script in sys.argv[1:]:
    folder = os.path.dirname(script)
    sys.path.insert(0, folder)
    sys.argv[:] = [script, "--help"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    found[script] = printed.getvalue()
    if folder in sys.path:
        sys.path.remove(folder)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def flags(ours: list[tuple[Command, Path]]) -> dict[Path, set[str]]:
    """The flags of each Python script that a command of the documents starts."""
    scripts = {program for _, script in ours if script.name not in OWN_WORDS for program in programs(script)}
    command = [sys.executable, "-c", _HELP, *sorted(map(str, scripts))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    helps = json.loads(done.stdout)
    assert [script for script, text in helps.items() if "--help" not in text] == []
    helps |= {str(REPOSITORY / name): (REPOSITORY / name).read_text() for name in OWN_WORDS}
    return {Path(script): set(re.findall(r"--[a-z][a-z-]*", text)) for script, text in helps.items()}


@pytest.mark.slow
def test_commands_have_their_flags(ours: list[tuple[Command, Path]], flags: dict[Path, set[str]]) -> None:
    assert len(ours) > 20
    for command, script in ours:
        behind = {script} if script.name in OWN_WORDS else programs(script)
        given = {word.partition("=")[0] for word in command.words if word.startswith("--")}
        assert given <= set().union(*(flags[program] for program in behind)), command.text


@each_document
def test_flags_that_are_named_exist(document: Path, flags: dict[Path, set[str]]) -> None:
    known = set().union(*flags.values(), FOREIGN_FLAGS)
    named = {
        flag
        for span in re.findall(r"`([^`\n]+)`", prose(document))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)
    }
    assert named <= known, named - known


def test_python_examples_import_what_is_there() -> None:
    examples = [block for path in DOCUMENTS for block in blocks(read(path), "python")]
    assert examples
    for example in examples:
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), node.module


# --- the tutorial ----------------------------------------------------------------------------------


def tutorial() -> str:
    return read(README).split("\n## Tutorial\n")[1].split("\n## ")[0]


def test_tutorial_is_what_the_tests_run() -> None:
    """`chain` of conftest.py runs these commands, in these folders and this order."""
    found = [
        (each.folder.relative_to(REPOSITORY).as_posix(), tuple(each.words)) for each in commands(tutorial())
    ]
    assert tuple(found) == TUTORIAL


def test_tutorial_is_what_the_demo_runs() -> None:
    """By `run.sh`, whose list is the tutorial (`test_pipeline.py`)."""
    assert re.search(
        r'bash run\.sh "\$gpu" --preset demo$', (REPOSITORY / "demo.sh").read_text(), re.MULTILINE
    )


def test_tutorial_shows_what_is_printed(chain: Scripts) -> None:
    """Every line is one that the scripts print, but for its numbers and what `...` leaves out."""

    def form(line: str) -> str:
        line = re.sub(r"\d[\d.,]*", "#", line).replace("(too few)", "(#-#)")
        return " ".join(line.split())

    printed = [form(line) for line in (chain.workspace / "printed.txt").read_text().splitlines()]
    shown = [
        line.removeprefix("#").removesuffix("...")
        for line in tutorial().splitlines()
        if line.startswith("# ")
    ]
    assert len(shown) > 15
    assert [line for line in shown if not any(each.startswith(form(line)) for each in printed)] == []


# --- what is said of the data ----------------------------------------------------------------------


def test_columns_of_a_case_table_are_those_that_are_read() -> None:
    table = read(REPOSITORY / "docs" / "data.md").split("| column | what |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(COLUMNS)


def test_layers_are_those_that_are_checked() -> None:
    contract = (REPOSITORY / "pyproject.toml").read_text().split("\nlayers = [")[1].split("]")[0]
    drawn = " ".join(
        re.findall(r'\["(.*)"\]', blocks(read(REPOSITORY / "docs" / "architecture.md"), "mermaid")[-1])
    )
    missing = [name for name in re.findall(r"\w+", contract) if not re.search(rf"\b{name}\b", drawn)]
    # scripts, whose layer is drawn as that of the phase scripts
    assert missing == ["launch", "prepare", "run"]


def test_every_file_of_the_map_exists() -> None:
    table = read(REPOSITORY / "common" / "README.md").split("question\n")[1].split("\n## ")[0]
    named = [name for name in re.findall(r"`([\w./]+)`", table) if name.endswith((".py", "/"))]
    assert len(named) > 40
    for name in named:
        assert (REPOSITORY / "common" / name).exists(), name


def test_docstrings_are_read_forwards() -> None:
    """No line refers back to the one above it, or leaves its noun out."""
    backwards = re.compile(r'^\s+[\w, `]+: (Of|That|Likewise|They|Which)\b|^\s*(# |""")?(Of|That|Likewise) ')
    for path in sorted((REPOSITORY / "common").rglob("*.py")):
        found = [line for line in read(path).splitlines() if backwards.search(line)]
        assert found == [], path.name


def test_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (.*)$", (REPOSITORY / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## \[([\d.]+)\]", read(REPOSITORY / "CHANGELOG.md"), re.MULTILINE)
    assert cited[1] == newest[1] == common.__version__
