"""What CI and the hooks run: `.ci/run`, and the commands they name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lib.artifacts import ROOT

MAKE = '#!/bin/sh\necho "make $*"\n'


def ci(bin_: Path, **scripts: str) -> subprocess.CompletedProcess[str]:
    """`.ci/run` where only these commands are there, besides bash, dirname and timeout."""
    bin_.mkdir()
    for name in ("bash", "dirname", "timeout", "sh", "env"):
        (bin_ / name).symlink_to(
            next(p for p in ("/bin", "/usr/bin") if Path(p, name).exists()) + f"/{name}"
        )
    for name, text in {"make": MAKE, **scripts}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    return subprocess.run(
        [ROOT / ".ci" / "run"], env={"PATH": str(bin_)}, capture_output=True, text=True, check=False
    )


def test_ci_runs_the_tests(tmp_path: Path) -> None:
    """Also where Chromium is not to be had: what needs it is then skipped, and that is said."""
    done = ci(tmp_path / "bin", chromium="#!/bin/sh\n")
    assert done.returncode == 0 and done.stdout == "make test-all\n"  # and nothing after it
    done = ci(tmp_path / "bare", **{"apt-get": "#!/bin/sh\nexit 100\n"})
    told = "no Chromium: its tests are skipped\nmake test-all\n"
    assert done.returncode == 0 and done.stdout == told


def test_ci_is_red_when_a_test_is(tmp_path: Path) -> None:
    assert ci(tmp_path / "bin", make="#!/bin/sh\nexit 2\n").returncode == 2


def test_pytest_leaves_out_by_default_what_test_all_adds() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^test-all:.*\n(\t.*\n)*\t\$\(CHECKS\) -m \"not short\"$", makefile, re.M)
    assert "-m 'not browser and not slow'" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_hooks_and_workflow_name_what_is_there() -> None:
    hooks: list[dict[str, Any]] = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
        for hook in repo["hooks"]
    ]
    assert len(hooks) == 4 and all(hook["language"] == "system" for hook in hooks)
    for hook in hooks:
        for word in hook["entry"].split():
            assert not word.startswith("tests/") or (ROOT / word).exists(), word
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13", "3.14"]
    assert job["steps"][-1] == {"run": ".ci/run"} and os.access(ROOT / ".ci" / "run", os.X_OK)
