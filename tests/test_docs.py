"""Every command and every Python block of the README and of each page of the docs runs as it stands.

The blocks of a page are taken in order, in a fresh folder that looks like the checkout, so that a later one
finds what an earlier one has made; its Python is one program. What takes long or needs data that is not
embedded is only parsed (`--print_config`), and so is what works on the run of such a command. Set-up lines
are compared with the project's files. Anything else fails here.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from command_line import cli

import ppl_vae

ROOT = Path(ppl_vae.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
FAR_DATA = {"mnist", "fashion-mnist", "cifar10", "frey-faces", "static-mnist"}
NOT_RUN = {"git", "cd", ".", "source", "tensorboard", "jupyter", "pre-commit", "ruff", "sudo", "export"}


def blocks(text):
    """Yield (language, text) of the fenced blocks in order."""
    for found in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```", text, re.M | re.S):
        yield found[1], found[2]


def commands(language, text):
    """Yield the commands of a shell block; of a console block, the lines behind a prompt."""
    lines = text.replace("\\\n", " ").splitlines()
    if language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            yield " ".join(line.split())


def inline(text):
    """Yield the ppl-vae commands of inline code; those with placeholders (RUN, ..., [--x]) are left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for found in re.findall(r"`((?:\w+=\S+ )?ppl-vae [^`]+)`", prose):
        if not re.search(r"\.\.\.|[\[|]|\b[A-Z]+\b(?!=)", found.split(" ppl-vae ")[-1]):
            yield " ".join(found.split())


def words_of(command):
    """Return the environment settings and the words of a command, up to a pipe or comment."""
    words = shlex.split(command, comments=True)
    settings = []
    while words and re.match(r"\w+=", words[0]):
        settings.append(words.pop(0))
    return settings, words


def after(words, option):
    """Return the value of an option, given as two words or with an equals sign."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


class Reader:
    """Runs the README's commands in order and remembers which runs do not exist because they take long."""

    def __init__(self, home):
        self.home, self.long_runs = home / "checkout", set()
        self.home.mkdir()
        for path in ROOT.iterdir():
            if path.name not in {"runs", ".git", ".venv", "build", "dist"}:
                (self.home / path.name).symlink_to(path)
        tools = home / "bin"
        tools.mkdir()
        command = tools / "ppl-vae"
        command.write_text(
            f"#!{sys.executable}\nimport sys\nfrom ppl_vae.cli import main\nsys.exit(main())\n"
        )
        command.chmod(0o755)
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}

    def run(self, *command):
        done = subprocess.run(
            command, cwd=self.home, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def command(self, line):
        _, words = words_of(line)
        tool = words[0].removeprefix(".venv/bin/") if words else ""
        if tool == "ppl-vae":
            self.ours(line, words)
        elif tool == "make":
            self.run("make", "--dry-run", "--always-make", *words[1:])
        elif re.fullmatch(r"python[\d.]*|pip", tool):
            self.python(line, words)
        elif tool not in {"pytest", *NOT_RUN}:
            pytest.fail(f"a command that nothing tests: {line}")

    def ours(self, line, words):
        runs = {word for word in words if word in self.long_runs}
        if after(words, "--data") in FAR_DATA or after(words, "--config") or runs:
            self.long_runs |= {after(words, "--out")} - {""}
            line = shlex.join(["env", *words_of(line)[0], *words, "--print_config"])
            self.run("bash", "-c", line.replace(".venv/bin/", ""))
        elif words[1:3] == ["data", "fetch"]:
            assert set(words[3:]) <= FAR_DATA | {"digits", "--offline"}
        elif line == shlex.join(words) and words[0] == "ppl-vae":
            self.here(words)
        else:
            self.run("bash", "-euo", "pipefail", "-c", line.replace(".venv/bin/", ""))

    def here(self, words):
        """Run a command that needs no shell in this process, which has loaded what takes seconds to load."""
        with contextlib.chdir(self.home):
            done = cli(*words[1:])
        assert done.code == 0, f"{' '.join(words)}\n{done.out[-2000:]}\n{done.err[-20:]}"

    def python(self, line, words):
        arguments = " ".join(words)
        if "venv" in words:
            return
        if "install" in words:
            named = re.search(r"-c (\S+)", arguments)
            assert not named or (ROOT / named[1]).is_file(), line
            assert {
                one for group in re.findall(r"\.\[(.*?)\]", arguments) for one in group.split(",")
            } <= EXTRAS
        elif "pytest" in words:
            assert all((ROOT / word).exists() for word in words if word.startswith("tests")), line
        elif len(words) > 1 and words[1].startswith("inference/"):
            self.ours(line, words)
        else:
            self.run("bash", "-euo", "pipefail", "-c", line)


class Page:
    """Runs the blocks of a page in order. Those of Python are one module, with sources of its classes."""

    def __init__(self, path, home):
        self.text, self.reader = path.read_text(), Reader(home)
        self.file = self.reader.home / f"page_{path.stem.lower()}.py"
        self.module = types.ModuleType(self.file.stem)
        self.module.__file__ = str(self.file)

    def run(self):
        for language, block in blocks(self.text):
            if language in {"bash", "console", "sh", "shell"}:
                for line in commands(language, block):
                    self.reader.command(line)
            elif language == "python":
                self.python(block)
        for line in inline(self.text):
            self.reader.command(line)

    def python(self, block):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:  # a block that begins with a file's name is that file
            (self.reader.home / named[1]).write_text(block)
            return
        before = self.file.read_text() if self.file.exists() else ""
        self.file.write_text(before + block)
        lines = "\n" * before.count("\n")
        with contextlib.chdir(self.reader.home), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(lines + block, self.file, "exec"), vars(self.module))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs(path, tmp_path, monkeypatch):
    page = Page(path, tmp_path)
    monkeypatch.setitem(sys.modules, page.module.__name__, page.module)
    page.run()


def anchors(text):
    """Return the anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_links_of_a_page_lead_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        name, _, anchor = target.partition("#")
        if "://" in name or name.startswith("mailto:"):
            continue
        found = path.parent / name if name else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def test_the_readme_is_short_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in text


def test_make_demo_and_make_test_come_first():
    shell = [
        line
        for language, block in blocks((ROOT / "README.md").read_text())
        for line in commands(language, block)
    ]
    named = [line.split("#")[0].strip() for line in shell if not line.startswith(("git ", "cd "))]
    assert named[:2] == ["make demo", "make test"]


# The reader itself

SAMPLE = """
```console
$ ppl-vae train vae \\
    --data mnist --out runs/m
a line of output
$ ppl-vae list   # all of them
```
See `ppl-vae train PROGRAM --data D`, `ppl-vae doctor` and `X=1 ppl-vae list`.
```python
x = 1
```
"""


def test_blocks_commands_and_inline_code():
    (first, console), (second, code) = blocks(SAMPLE)
    assert (first, second, code) == ("console", "python", "x = 1\n")
    long, short = commands(first, console)
    assert words_of(long) == ([], ["ppl-vae", "train", "vae", "--data", "mnist", "--out", "runs/m"])
    assert words_of(short)[1] == ["ppl-vae", "list"]
    assert list(inline(SAMPLE)) == ["ppl-vae doctor", "X=1 ppl-vae list"]


def test_long_commands_and_what_follows_them_are_parsed_only(tmp_path, monkeypatch):
    reader, seen = Reader(tmp_path), []
    monkeypatch.setattr(reader, "run", lambda *command: seen.append(command[-1]))
    monkeypatch.setattr(reader, "here", lambda words: seen.append(words))
    for line in (
        "PPL_VAE_DATA=/d ppl-vae train vae --data mnist --out runs/m",
        "ppl-vae evaluate runs/m",
        "ppl-vae train vae --data digits --out runs/d",
        "ppl-vae evaluate runs/d > /dev/null",
    ):
        reader.command(line)
    assert seen == [
        "env PPL_VAE_DATA=/d ppl-vae train vae --data mnist --out runs/m --print_config",
        "env ppl-vae evaluate runs/m --print_config",
        ["ppl-vae", "train", "vae", "--data", "digits", "--out", "runs/d"],
        "ppl-vae evaluate runs/d > /dev/null",
    ]


@pytest.mark.parametrize(
    "line", ["rm -rf runs", "make no-such-target", "pip install -c gone.txt -e .", "pip install -e .[gone]"]
)
def test_commands_that_nothing_tests_are_refused(tmp_path, line):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        Reader(tmp_path).command(line)
