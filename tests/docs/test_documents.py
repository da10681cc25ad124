"""What the documents say is true: links lead somewhere, commands and environments exist, code compiles."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from medssl.cli import COMMANDS
from medssl.config.arguments import parse
from medssl.config.merge import merge
from medssl.config.pretrain import PretrainConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ENVIRONMENT = re.compile(r"`tox -e (\w+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_tox_environments_exist(document: Path) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    named = ENVIRONMENT.findall(document.read_text(encoding="utf-8"))
    assert [name for name in named if not tox.has_section(f"testenv:{name}")] == []


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_their_options(document: Path) -> None:
    for line in "".join(blocks(document, "console")).splitlines():
        program, *words = shlex.split(line, comments=True)
        if program == "medssl" and not words[0].isupper():
            module, _, name = COMMANDS[words[0]].config.partition(":")
            model = getattr(import_module(module), name)
            parse(model, f"medssl {words[0]}", "", words[1:])


@pytest.mark.parametrize("text", blocks(ROOT / "docs" / "published.md", "yaml"), ids=lambda t: t.split()[1])
def test_published_trainings_are_settings_that_fit_each_other(text: str, tmp_path: Path) -> None:
    from medssl.methods import METHODS
    from medssl.nets.backbone import Backbone
    from medssl.nets.encoders import build_encoder

    path = tmp_path / "published.yaml"
    path.write_text(text, encoding="utf-8")
    config = merge(PretrainConfig, {"config": path, "data": "scans", "out": "run"})
    entry = METHODS[config.method]
    settings = entry.config_class().for_dims(config.settings, config.dims)
    method = entry.build(settings, Backbone(build_encoder(config.encoder, config.dims)), 1)
    assert method.config == settings


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_compiles_and_its_names_exist(document: Path) -> None:
    import medssl

    for block in blocks(document, "python"):
        tree = ast.parse(block)
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        names = [n.attr for n in used if isinstance(n.value, ast.Name) and n.value.id == "medssl"]
        assert [name for name in names if not hasattr(medssl, name)] == []
