"""The manifests of deploy/ agree with the project and with each other, and their commands can be typed. Nothing is deployed here."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shown import callboards, typed, why_not

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"{PROJECT['name']}:{PROJECT['version']}"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The documents of a manifest, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / name).read_text())}


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's group and the workers' of a RayCluster's spec."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


CLUSTER = documents("kuberay-cluster.yaml")
JOB = documents("kuberay-job.yaml")
CLAIMS = [CLUSTER["PersistentVolumeClaim"], JOB["PersistentVolumeClaim"]]
SPECS = {"cluster": CLUSTER["RayCluster"]["spec"], "job": JOB["RayJob"]["spec"]["rayClusterSpec"]}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_ray_cluster_runs_the_projects_ray_in_the_projects_image(spec: dict[str, Any]) -> None:
    assert f"ray[default]=={spec['rayVersion']}" in PROJECT["dependencies"]
    names = [group.get("groupName", "head") for group in groups(spec)]
    assert len(set(names)) == len(names)
    for group in groups(spec):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['fsGroup']}\n" in CONTAINERFILE
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("spec", "claim"), list(zip(SPECS.values(), CLAIMS, strict=True)), ids=SPECS)
def test_the_journal_of_a_ray_cluster_is_on_a_volume_that_outlives_it(spec: dict[str, Any], claim: dict[str, Any]) -> None:
    home = re.search(r"CALLBOARD_HOME=(\S+)", CONTAINERFILE)
    assert home is not None
    pod = spec["headGroupSpec"]["template"]["spec"]
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    claims = {one["name"]: one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
    assert claims[mounts[home[1]]] == claim["metadata"]["name"]


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_the_kinds_are_those_of_kuberay(kind: str) -> None:
    assert (CLUSTER | JOB)[kind]["apiVersion"] == "ray.io/v1"


def test_the_labels_of_workers_are_what_ray_takes_as_labels() -> None:
    from ray._private.label_utils import validate_node_label_syntax

    for group in SPECS["cluster"]["workerGroupSpecs"]:
        validate_node_label_syntax(group["labels"])


def test_the_jobs_entrypoint_is_a_named_run_on_the_cluster_that_it_is_in() -> None:
    spec = JOB["RayJob"]["spec"]
    ((*words,),) = callboards([spec["entrypoint"]])
    assert why_not(words) is None
    assert words[words.index("--address") + 1] == "auto"
    assert words[words.index("--run-id") + 1] == JOB["RayJob"]["metadata"]["name"]
    team = Path(words[1].partition(":")[0])
    mounts = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(team.parent) in {one["mountPath"] for one in mounts}


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_the_commands_that_a_manifest_tells_to_type_can_be_typed(path: Path) -> None:
    assert [why for words in callboards(typed(path.read_text())) if (why := why_not(words))] == []


def test_the_launchers_file_is_what_ray_takes() -> None:
    import jsonschema
    from ray import autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    jsonschema.validate(config, json.loads((Path(autoscaler.__path__[0]) / "ray-schema.json").read_text()))
    validate_config(prepare_config(config))
    assert (ROOT / config["file_mounts"]["~/callboard"] / "pyproject.toml").exists()


def test_the_launchers_commands_install_with_the_projects_constraints_and_start_ray_as_ray_can_be_started() -> None:
    from ray.scripts.scripts import start

    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    install = next(line for line in config["setup_commands"] if "pip install" in line)
    assert "-c ~/callboard/constraints.txt" in install
    assert_extras(re.findall(r"\[(.*)\]", install)[0])
    assert [why for words in callboards(config["setup_commands"]) if (why := why_not(words))] == []
    for role, commands in (("head", config["head_start_ray_commands"]), ("worker", config["worker_start_ray_commands"])):
        _, _, line = commands[-1].partition("ray start ")
        context = start.make_context("ray start", shlex.split(line))
        assert context.params["head"] is (role == "head")


def test_the_image_is_made_of_all_that_the_package_is_made_of() -> None:
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE) for word in line.split()}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "examples"}
    assert packages | {"pyproject.toml", "constraints.txt", PROJECT["readme"], "LICENSE"} == copied
    assert all((ROOT / name).exists() for name in copied)
    assert_extras(re.findall(r"^ARG EXTRAS=(.*)$", CONTAINERFILE, re.MULTILINE)[0])


def test_the_image_runs_the_command_on_a_python_that_the_package_takes_and_names_no_registry() -> None:
    bases = set(re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE))
    assert bases == {f"python:{PROJECT['requires-python'].removeprefix('>=')}-slim"}
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", CONTAINERFILE, re.MULTILINE)[0])[0] in PROJECT["scripts"]
    assert why_not(json.loads(re.findall(r"^CMD (.*)$", CONTAINERFILE, re.MULTILINE)[0])) is None
    assert f"-t {IMAGE} " in CONTAINERFILE


def assert_extras(listed: str) -> None:
    """That each is an extra of the project, and none is only for those who work on it."""
    assert set(listed.split(",")) <= set(PROJECT["optional-dependencies"]) - {"dev"}
