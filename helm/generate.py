"""Write what is generated of the chart: values.yaml, values.schema.json and, with Helm, the manifests of k8s/.

python -m helm.generate            all of it; the manifests only where Helm is found
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from helm.sections import Section
from helm.values import Values
from nearshore.settings import Settings

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "nearshore"
CLUSTER_VALUES = CHART / "values-cluster.yaml"
MANIFESTS: dict[str, tuple[str, ...]] = {"embedded.yaml": (), "cluster.yaml": ("--values", str(CLUSTER_VALUES))}
WIDTH = 118
HEADER = "# Generated from helm/values.py and helm/sections.py by `make chart`: change it there.\n"
MANIFEST_HEADER = """\
# Rendered from helm/nearshore by `make chart`: change it there.
#   sed "s|image: nearshore:.*|image: $IMAGE:$TAG|" k8s/{name} | kubectl apply --filename -
"""
# Not true of objects that kubectl applies.
HELM_LABELS = ("helm.sh/chart:", "app.kubernetes.io/managed-by:")


def make_schema() -> dict[str, Any]:
    """The JSON schema of the chart's values. `config` has the sections of the server's settings."""
    schema = Values.model_json_schema(by_alias=True)
    settings = Settings.model_json_schema()
    sections = {name: each for name, each in settings["properties"].items() if "$ref" in each}
    schema["$defs"] |= settings["$defs"]
    schema["properties"]["config"] |= {"properties": sections, "additionalProperties": False}
    # Helm hands the values that parent and child charts share to each of them under this name.
    schema["properties"]["global"] = {"type": "object"}
    cleaned = _without_titles(schema)
    assert isinstance(cleaned, dict)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **cleaned}


def make_values() -> str:
    """values.yaml: every value at its default, under the comment that describes it."""
    blocks = [_block(Values(), name) for name in Values.model_fields]
    return HEADER + "\n" + "\n".join(blocks)


def render_manifest(helm: str, name: str) -> str:
    """The plain manifest of one shape, as file `name` of k8s/. Raises CalledProcessError if Helm refuses."""
    command = [helm, "template", "nearshore", str(CHART), "--no-hooks", *MANIFESTS[name]]
    rendered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line for line in rendered.splitlines() if not line.strip().startswith(HELM_LABELS)]
    return MANIFEST_HEADER.format(name=name) + "\n".join(lines) + "\n"


def find_helms() -> list[str]:
    """The Helm programs: those that HELM names, divided like a PATH, else the one on the PATH."""
    named = os.environ.get("HELM") or "helm"
    return [found for each in named.split(os.pathsep) if (found := shutil.which(each))]


def main() -> None:
    """Write the files."""
    (CHART / "values.yaml").write_text(make_values(), encoding="utf-8")
    (CHART / "values.schema.json").write_text(json.dumps(make_schema(), indent=2) + "\n", encoding="utf-8")
    helms = find_helms()
    if not helms:
        sys.exit(
            "values.yaml and values.schema.json are written. The manifests of k8s/ need Helm: see CONTRIBUTING.md."
        )
    for name in MANIFESTS:
        (ROOT / "k8s" / name).write_text(render_manifest(helms[0], name), encoding="utf-8")


def _block(section: Section, name: str) -> str:
    """One value with its comment, and what lies below it."""
    field, value = type(section).model_fields[name], getattr(section, name)
    comment = textwrap.wrap(field.description or "", WIDTH, initial_indent="# ", subsequent_indent="# ")
    key = field.alias or name
    if isinstance(value, Section):
        inner = "".join(_block(value, each) for each in type(value).model_fields)
        body = f"{key}:\n" + textwrap.indent(inner, "  ")
    else:
        body = yaml.safe_dump({key: value}, sort_keys=False, width=WIDTH)
    return "\n".join(comment) + "\n" + body


def _without_titles(node: Any) -> Any:
    """The same schema without pydantic's titles, which repeat the names. A property may be called title."""
    if isinstance(node, list):
        return [_without_titles(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_titles(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}


if __name__ == "__main__":
    main()
