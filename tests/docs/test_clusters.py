"""``docs/clusters``: the manifest has KubeRay's fields; the Slurm script does what its page says, with stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from autokd.config import load_config

FOLDER = Path(__file__).parents[2] / "docs" / "clusters"
MANIFEST = FOLDER / "kuberay.yaml"
SCRIPT = FOLDER / "slurm.sh"

# Fields and their types of ray.io/v1 (KubeRay 1.7, rayjobs.ray.io) and of the parts of a pod that the manifest uses
# (Kubernetes v1). A field that is not listed is refused, as KubeRay's strict validation would; "!" marks required ones.
TEXT, WHOLE, FLAG, WORDS = str, int, bool, {"*": str}
QUANTITIES = {"requests": WORDS, "limits": WORDS}
CONTAINER = {
    "name!": TEXT,
    "image": TEXT,
    "env": [
        {"name!": TEXT, "value": TEXT, "valueFrom": {"secretKeyRef": {"name": TEXT, "key!": TEXT, "optional": FLAG}}}
    ],
    "resources": QUANTITIES,
    "volumeMounts": [{"name!": TEXT, "mountPath!": TEXT, "readOnly": FLAG, "subPath": TEXT}],
}
VOLUME = {
    "name!": TEXT,
    "configMap": {"name": TEXT},
    "persistentVolumeClaim": {"claimName!": TEXT},
    "emptyDir": {"medium": TEXT, "sizeLimit": TEXT},
}
POD = {
    "metadata": {"labels": WORDS, "annotations": WORDS},
    "spec": {"containers!": [CONTAINER], "volumes": [VOLUME], "terminationGracePeriodSeconds": WHOLE},
}
HEAD = {"rayStartParams": WORDS, "template!": POD, "serviceType": TEXT, "enableIngress": FLAG}
WORKER = {
    "groupName!": TEXT,
    "replicas": WHOLE,
    "minReplicas!": WHOLE,
    "maxReplicas!": WHOLE,
    "numOfHosts": WHOLE,
    "rayStartParams": WORDS,
    "template!": POD,
}
CLUSTER = {
    "rayVersion": TEXT,
    "authOptions": {"mode": ("token", "disabled"), "secretName": TEXT, "enableK8sTokenAuth": FLAG},
    "enableInTreeAutoscaling": FLAG,
    "headGroupSpec!": HEAD,
    "workerGroupSpecs": [WORKER],
}
COMMON = {"apiVersion!": TEXT, "metadata!": {"name!": TEXT, "labels": WORDS}}
KINDS = {
    ("v1", "ConfigMap"): {"data": WORDS},
    ("v1", "PersistentVolumeClaim"): {
        "spec!": {"accessModes": [TEXT], "storageClassName": TEXT, "resources": {"requests": WORDS}}
    },
    ("ray.io/v1", "RayJob"): {
        "spec!": {
            "entrypoint": TEXT,
            "backoffLimit": WHOLE,
            "shutdownAfterJobFinishes": FLAG,
            "ttlSecondsAfterFinished": WHOLE,
            "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
            "rayClusterSpec": CLUSTER,
        }
    },
}


def problems(value: object, schema: object, where: str) -> list[str]:
    """Return what Kubernetes would refuse of a value."""
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [found for i, item in enumerate(value) for found in problems(item, schema[0], f"{where}[{i}]")]
    if isinstance(schema, tuple):
        return [] if value in schema else [f"{where}: {value!r} is none of {schema}"]
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{where}: {value!r} is no {schema.__name__}"]
    assert isinstance(schema, dict)
    if not isinstance(value, dict):
        return [f"{where}: no mapping"]
    fields = {name.rstrip("!"): inner for name, inner in schema.items()}
    found = [f"{where}: {name[:-1]} is missing" for name in schema if name.endswith("!") and name[:-1] not in value]
    for name, inner in value.items():
        known = fields.get(name, fields.get("*"))
        found += [f"{where}: unknown field {name}"] if known is None else problems(inner, known, f"{where}.{name}")
    return found


@pytest.fixture(scope="module")
def documents() -> dict[str, dict]:
    found = list(YAML(typ="safe", pure=True).load_all(MANIFEST.read_text(encoding="utf-8")))
    assert len(found) == 3
    return {document["kind"]: document for document in found}


def problems_of(document: dict) -> list[str]:
    schema = KINDS[document["apiVersion"], document["kind"]]
    return problems(document, {**COMMON, "kind!": TEXT, **schema}, document["kind"])


def test_the_manifest_has_kuberays_fields_and_types(documents: dict[str, dict]) -> None:
    assert [found for document in documents.values() for found in problems_of(document)] == []


@pytest.mark.parametrize(
    ("place", "name", "value", "said"),
    [
        (("spec",), "entryPoint", "autokd", "unknown field entryPoint"),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "on", "'on' is none of"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), "num-cpus", 0, "0 is no str"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "minReplicas", None, "None is no int"),
    ],
)
def test_the_check_of_the_manifest_refuses_mistakes(documents, place, name, value, said) -> None:
    import copy

    document = inner = copy.deepcopy(documents["RayJob"])
    for step in place:
        inner = inner[step]
    inner[name] = value
    assert any(said in found for found in problems_of(document))


def test_the_parts_of_the_manifest_fit_together(documents: dict[str, dict], tmp_path: Path) -> None:
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    named = {documents[kind]["metadata"]["name"] for kind in ("ConfigMap", "PersistentVolumeClaim")}
    for pod in pods:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            claimed = volume.get("configMap", {}).get("name") or volume.get("persistentVolumeClaim", {}).get(
                "claimName"
            )
            assert claimed in named or "emptyDir" in volume
        for limits in container["resources"].values():
            assert all(re.fullmatch(r"\d+(\.\d+)?(m|[KMGT]i?)?", quantity) for quantity in limits.values())
    assert cluster["authOptions"]["mode"] == "token"
    images = {pod["containers"][0]["image"] for pod in pods}
    assert len(images) == 1, "driver and workers must run the same AutoKD"
    words = documents["RayJob"]["spec"]["entrypoint"].split()
    assert words[:3] == ["autokd", "search", "/config/search.yaml"]
    mounts = [mount["mountPath"] for mount in pods[0]["containers"][0]["volumeMounts"]]
    for option in ("--run-dir", "--cache-dir"):
        assert words[words.index(option) + 1].startswith(tuple(mounts))
    (tmp_path / "data" / "mine" / "train").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train" / "_annotations.coco.json").write_text("{}")
    (tmp_path / "data" / "mine" / "valid").mkdir()
    (tmp_path / "data" / "mine" / "valid" / "_annotations.coco.json").write_text("{}")
    (tmp_path / "teacher.pth").touch()
    config = load_config(documents["ConfigMap"]["data"]["search.yaml"].replace("/shared", str(tmp_path)))
    assert config.runtime.workers == 4


def test_the_script_is_bash_and_shellcheck_finds_nothing() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


# Stand-ins: srun runs a step here, Ray's nodes wait for their end, autokd ends in order on SIGTERM.
STAND_INS = {
    "srun": 'echo "srun $*" >> "$LOG"; while [ "$1" != bash ]; do shift; done; exec "$@"',
    "ray": 'echo "ray $* token=${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$LOG"; exec sleep 60',
    "python": '[ "$1" = -c ] && echo 00112233445566778899 || { cat > /dev/null; echo "wait $*" >> "$LOG"; }',
    "hostname": '[ $# -gt 0 ] && echo "10.0.0.1 fe80::1" || echo node1',
    "scontrol": 'echo "scontrol $*" >> "$LOG"',
    "autokd": (
        'trap \'echo ended >> "$LOG"; exit 143\' TERM; echo "autokd $*" >> "$LOG"; '
        '[ -e "$LOG.quick" ] && exit 0; while true; do sleep 0.05; done'
    ),
}


@pytest.fixture
def job(tmp_path: Path) -> tuple[dict[str, str], Path]:
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    slurm = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "8", "USER": "me"}
    return slurm | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(log)}, log


def _start(environment: dict[str, str], tmp_path: Path) -> subprocess.Popen[bytes]:
    text = SCRIPT.read_text().replace("/tmp/ray-", f"{tmp_path}/ray-")
    (tmp_path / "slurm.sh").write_text(text)
    command = ["bash", str(tmp_path / "slurm.sh"), "mine.yaml", "/shared/runs/mine"]
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the stand-ins of Ray's nodes, as Slurm ends the steps of a job."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _until(log: Path, *words: str) -> str:
    until_s = time.monotonic() + 60
    while not all(word in log.read_text() for word in words):
        assert time.monotonic() < until_s, log.read_text()
        time.sleep(0.02)
    return log.read_text()


def test_the_script_starts_all_nodes_with_a_token_and_runs_the_search(job, tmp_path: Path) -> None:
    environment, log = job
    (tmp_path / "log.quick").touch()
    process = _start(environment, tmp_path)
    try:
        assert process.wait(60) == 0
        text = _until(log, "ray start --head", "ray start --address=10.0.0.1:24242")
    finally:
        _end(process)
    assert "--nodes=1 --ntasks=1 --nodelist=node1" in text
    assert "--nodes=2 --ntasks=2 --exclude=node1" in text
    assert "--port=24242 --node-ip-address=10.0.0.1" in text
    assert text.count("--num-cpus=8 token=20 token") == 2
    assert "00112233445566778899" not in text, "no command line shows the token"
    assert (tmp_path / "ray-4242").stat().st_mode & 0o777 == 0o700
    assert "autokd search mine.yaml --ray-address 10.0.0.1:24242 --run-dir /shared/runs/mine --resume" in text
    assert "wait - 3" in text
    assert "scontrol" not in text


def test_slurms_warning_ends_the_search_in_order_and_puts_the_job_back_into_the_queue(job, tmp_path: Path) -> None:
    environment, log = job
    process = _start(environment, tmp_path)
    try:
        _until(log, "autokd search")
        process.send_signal(signal.SIGTERM)  # to the script alone, as --signal=B: does
        assert process.wait(60) == 143
        assert _until(log, "scontrol").endswith("ended\nscontrol requeue 4242\n")
    finally:
        _end(process)
