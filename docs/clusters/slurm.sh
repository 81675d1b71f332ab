#!/usr/bin/env bash
# A search over several nodes of a Slurm cluster; slurm.md explains it. Usage: sbatch slurm.sh SEARCH.yaml RUN_DIR
#SBATCH --job-name=autokd
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=2
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=autokd-%j.log
set -euo pipefail
umask 077

search=${1:?usage: sbatch slurm.sh SEARCH.yaml RUN_DIR}
run_dir=${2:?usage: sbatch slurm.sh SEARCH.yaml RUN_DIR}
: "${AUTOKD_CACHE:=/tmp/autokd-cache-$USER}"
export AUTOKD_CACHE

# Only processes with this token may run code on the cluster. srun hands it on, and no command line shows it.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

# Two jobs may share a node: ports by the job's number, or free ones (0).
export port=$((20000 + SLURM_JOB_ID % 10000))
head=$(hostname)  # Slurm runs this script on the first node
head_ip=$(hostname --ip-address | cut -d ' ' -f 1)
export address=$head_ip:$port
# Ray lets everyone write into its folder: it lies within one that is this user's alone. Sockets need a short path.
export ray_folder=/tmp/ray-$SLURM_JOB_ID
export common="--temp-dir=$ray_folder/r --object-store-memory=134217728 --dashboard-agent-listen-port=0 --block"

# Each node reads the variables itself; $RAY_ROLE and $common are several words on purpose.
# shellcheck disable=SC2016
on_node='mkdir -p "$ray_folder" && exec ray start $RAY_ROLE $common --num-cpus="$SLURM_CPUS_PER_TASK"'
RAY_ROLE="--head --port=$port --node-ip-address=$head_ip --include-dashboard=false --ray-client-server-port=0" \
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" bash -c "$on_node" &
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  RAY_ROLE="--address=$address" \
    srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" bash -c "$on_node" &
fi

# The division of cores counts the nodes that are there: wait for all, ten minutes at most.
python - "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import os, sys, time
import ray

until = time.monotonic() + 600
while True:
    try:
        ray.init(os.environ["address"], log_to_driver=False)
        break
    except (ConnectionError, RuntimeError):
        if time.monotonic() > until:
            sys.exit("the head of the Ray cluster did not start")
        time.sleep(5)
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]):
    if time.monotonic() > until:
        sys.exit(f"only {alive} of {sys.argv[1]} nodes have joined the Ray cluster")
    time.sleep(5)
PYTHON

# --resume begins a new run, or goes on with the one in the run directory.
autokd search "$search" --ray-address "$address" --run-dir "$run_dir" --resume &
driver=$!
# Slurm's warning before the time is over: the run ends in order within 30 s.
trap 'kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if ((status > 128)) && kill -0 "$driver" 2>/dev/null; then  # it was the wait that the signal ended
  status=0
  wait "$driver" || status=$?
fi

# Ray's nodes end with this script: Slurm ends the steps of srun.
if ((status == 143)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
