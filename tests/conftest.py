import gc
import importlib.util
import mmap
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import posterax  # noqa: F401  (asks for threads before JAX counts them)
import pytest

# Compilation dominates the suite: what one run has compiled, the next one (and every subprocess) finds again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
os.environ.setdefault("MPLBACKEND", "Agg")


def knows(flag):
    """Whether jaxlib has this flag; one that it does not have would end every process."""
    package = importlib.util.find_spec("jaxlib")
    for library in Path(package.origin).parent.glob("*jax_common*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(flag.encode()) >= 0:
                return True
    return False


# Most programs run once, on a few numbers: machine code that is made quickly saves more than it costs. Level 0 would be
# made in less time still, and makes the few long runs (64 particles moved by NUTS) six times as slow.
if "XLA_FLAGS" not in os.environ:
    quick = {"xla_cpu_use_fusion_emitters": "false", "xla_backend_optimization_level": "1"}
    os.environ["XLA_FLAGS"] = " ".join(f"--{flag}={value}" for flag, value in quick.items() if knows(flag))

# A shell starts background jobs deaf to Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def data_folder():
    """The folder with reference data, which is not part of the product."""
    folder = Path(os.environ.get("POSTERAX_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"there is no reference data at {folder}; set POSTERAX_DATA to its folder")
    return folder


@pytest.fixture
def float64():
    """Double precision for the whole test, so that exact identities can be held to 1e-9."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def few_optimisations():
    """For modules whose time goes into compiling programs that are run once, on a few numbers."""
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Each compiled program takes some memory mappings, of which a process has 65,530: LLVM's "cannot allocate"."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        sys.modules["jax"].clear_caches()
        gc.collect()


def pytest_collection_modifyitems(items):
    # Workers take whole files, so that what a file has compiled or built serves all its tests. A test whose file says
    # `group = function of the item` is taken with those of its group, or alone where that is None.
    for item in items:
        group = getattr(item.module, "group", lambda item: str(item.path))(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


# --- from sources to wheels to a fresh environment that has nothing of ours but what is installed there


def _call(*command, **options):
    """Run a command away from the sources, so that nothing but what is installed can be found."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTERAX_", "PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(word) for word in command],
        env=clean | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _build(source, folder):
    """The wheel of a project, built into a folder."""
    _call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    name = tomllib.loads((source / "pyproject.toml").read_text())["project"]["name"].replace("-", "_")
    (wheel,) = folder.glob(f"{name}-[0-9]*.whl")
    return wheel


def _fresh(folder, wheels):
    """The `bin` folder of a fresh environment with these wheels and borrowed dependencies."""
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (site_packages,) = (folder / "env").glob("lib/python3*/site-packages")
    _borrow_dependencies(site_packages, folder / "dependencies")
    home = folder / "env" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", home / "python", "install", "--quiet", "--no-deps", "--no-index")
    _call(*pip, "--no-compile", "--disable-pip-version-check", *wheels, cwd=folder)
    return home


def _borrow_dependencies(site_packages, folder):
    """Show a fresh environment what is installed here, except posterax and what leads to its sources."""
    folder.mkdir()
    for home in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(home).iterdir():
            ours = re.match(r"posterax|_*editable", entry.name) or entry.suffix == ".pth"
            if not ours and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    (site_packages / "dependencies.pth").write_text(f"{folder}\n")


@pytest.fixture(scope="session")
def call():
    return _call


@pytest.fixture(scope="session")
def build():
    return _build


@pytest.fixture(scope="session")
def fresh():
    return _fresh


@pytest.fixture(scope="session")
def own_wheel(tmp_path_factory):
    """Posterax's own wheel, built once."""
    return _build(Path(__file__).parents[1], tmp_path_factory.mktemp("own"))
