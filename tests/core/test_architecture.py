"""The structure of the project: imports point one way, and what is slow is imported when needed."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

# From the bottom to the top; a module imports from its own layer and those below. Modules of
# bert_toolkit itself are named, a wing stands for all its modules.
LAYERS = (
    ("errors", "problems", "results", "compute", "tensorflow_start"),
    ("tokenization", "modeling", "optimization"),
    ("options", "io", "pages"),
    ("text", "cli"),
    ("checkpoints",),
    ("training",),
    ("pretraining", "tasks", "features"),
    ("inference", "export"),
    ("serving",),
    ("commands", "create_pretraining_data", "run_pretraining", "run_classifier")
    + ("run_squad", "run_token_classifier"),
    ("extract_features", "__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "bert_toolkit").rglob("*.py")]
STAGES = {
    "create_pretraining_data",
    "run_pretraining",
    "run_classifier",
    "run_squad",
    "run_token_classifier",
    "extract_features",
}


def unit(module):
    """Returns the name in LAYERS of a dotted module name of ours; None of others."""
    parts = module.split(".")
    if parts[0] == "bert_toolkit":
        return parts[1] if len(parts) > 1 and parts[1] in LEVEL else None
    return parts[0] if parts[0] in LEVEL else None  # a library's, or a name of the package


def imports(path):
    """Yields the units that a file imports, at its top or inside of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
            if node.module == "bert_toolkit":
                names = [f"bert_toolkit.{alias.name}" for alias in node.names]
        else:
            continue
        yield from filter(None, map(unit, names))


def unit_of(path):
    relative = path.relative_to(ROOT).with_suffix("")
    return relative.parts[1] if relative.parts[0] == "bert_toolkit" else relative.parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = unit_of(path)
    if own == "setup":
        return
    above = [name for name in imports(path) if LEVEL[name] > LEVEL[own]]
    assert above == []


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_imports_no_other_stage(stage):
    assert set(imports(ROOT / f"{stage}.py")) & (STAGES - {stage}) == set()


def test_modules_do_not_import_each_other_in_a_circle():
    """Top-level imports of each module, which would fail in a circle only in some orders."""
    graph = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                graph[name] |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, [*under_way, name]
        if name in done or name not in graph:
            return
        under_way.append(name)
        for other in graph[name] & graph.keys():
            visit(other)
        under_way.pop()
        done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize(
    "module",
    [
        *sorted(STAGES),
        "bert_toolkit",
        "bert_toolkit.__main__",
        "bert_toolkit.commands.build_vocab",
        "bert_toolkit.commands.convert_checkpoint",
        "bert_toolkit.commands.export_model",
        "bert_toolkit.commands.extend_vocab",
        "bert_toolkit.commands.baselines",
        "bert_toolkit.commands.compare",
        "bert_toolkit.commands.report",
        "bert_toolkit.commands.fill_mask",
        "bert_toolkit.commands.score",
        "bert_toolkit.commands.distill",
        "bert_toolkit.commands.distill_tagger",
        "bert_toolkit.commands.search",
        "bert_toolkit.commands.find_lr",
        "bert_toolkit.commands.multitask",
        "bert_toolkit.commands.attention",
        "bert_toolkit.commands.explain",
        "bert_toolkit.commands.serve",
        "bert_toolkit.serving.client",
        "bert_toolkit.commands.review_data",
    ],
)
def test_importing_a_command_does_not_import_tensorflow(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
