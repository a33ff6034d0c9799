#!/bin/bash
# Tries shards.sbatch and merge.sbatch on a Slurm of one node, which it starts in a scratch folder and ends again. Needs root,
# "apt-get install slurm-wlm munge" and, in the repository, "npm ci && npm run build".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
# munged wants no folder above its socket to be another's.
chmod 755 "$scratch"
daemons=()
finish() {
  scancel --quiet --user=root 2>>"$scratch/daemons.log" || true
  for pid in "${daemons[@]}"; do kill "$pid" || true; done
  wait
  rm -rf "$scratch"
}
trap finish EXIT

start() {
  "$@" >>"$scratch/daemons.log" 2>&1 &
  daemons=("$!" "${daemons[@]}")
}
# Runs a command twice a second, for two minutes at most, until it goes well.
until_true() {
  for _ in $(seq 240); do
    if "$@" >>"$scratch/daemons.log" 2>&1; then return; fi
    sleep 0.5
  done
  echo "in vain: $*" >&2
  tail -n 20 "$scratch/daemons.log" >&2
  return 1
}

export SLURM_CONF=$scratch/slurm.conf
host=$(hostname -s)
cat >"$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
# A task that is started again waits as long as the credentials of its former start are good for: 120 s but for this.
AuthInfo=socket=$scratch/munge.socket,cred_expire=5
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=$host Default=YES
CONF
mkdir "$scratch/state" "$scratch/spool"
dd if=/dev/urandom of="$scratch/munge.key" bs=1024 count=1 status=none
chmod 400 "$scratch/munge.key"
start munged --foreground --force --key-file="$scratch/munge.key" --socket="$scratch/munge.socket" --pid-file="$scratch/munged.pid" \
  --seed-file="$scratch/munged.seed" --log-file="$scratch/munged.log"
until_true test -S "$scratch/munge.socket"
start slurmctld -D
start slurmd -D
until_true sh -c 'sinfo --noheader --format=%t | grep -qx idle'

cd "$scratch"
model=$root/demo/models/two-moons-flow.safetensors
export DELDOT="node $root/dist/cli.js"
# 2^19 points: each of four shards has two blocks of 2^16.
# shellcheck disable=SC2016
node -e '
  const numbers = Float32Array.from({ length: 2 ** 20 }, (_, index) => ((Math.imul(index + 1, 2654435761) >>> 8) / 2 ** 24) * 4 - 2);
  const header = `{"descr": "<f4", "fortran_order": False, "shape": (524288, 2), }`.replaceAll("\"", "\x27").padEnd(117) + "\n";
  const magic = Buffer.from([0x93, ...Buffer.from("NUMPY"), 1, 0, header.length, 0]);
  require("node:fs").writeFileSync("points.npy", Buffer.concat([magic, Buffer.from(header), Buffer.from(numbers.buffer)]));
'
# Kernels that are fixed, so that two runs have the same bits.
work=(logprob "$model" --points points.npy --solver midpoint --steps 4 --adapter software --kernels "layers 4x4")

array() {
  local out=$1
  shift
  sbatch --parsable --array=0-3 "$here/shards.sbatch" "$@" --out "$out"
}
merge() {
  sbatch --parsable --wait --dependency="afterok:$1" --kill-on-invalid-dep=yes "$here/merge.sbatch" "$2"
}
# What has become of a job: a line for each task.
tell() {
  scontrol --oneliner show job "$1" | awk '{
    for (field = 1; field <= NF; field++) { split($field, pair, "="); of[pair[1]] = pair[2] }
    split(of["ExitCode"], code, ":")
    task = "ArrayTaskId" in of ? " " of["ArrayTaskId"] : ""
    print of["JobName"] task ": " of["JobState"] ", " of["Restarts"] " restarts, status " code[1]
  }' | sort
}
# Sends a signal to what computes a shard, and to nothing else, once its first block of rows is there.
cut_off() {
  until_true sh -c "grep --silent count result.shard-$2-of-4.json.*.part"
  job=$(squeue --noheader --jobs="$1_$2" --format=%A)
  kill "-$3" "$(scontrol listpids "$job.0" | awk '$4 == 0 { print $1 }')"
  echo "$3 to task $2, which had $(node "$root/dist/cli.js" shards result.npy | awk -v shard="$2" '$1 == shard && $2 == "begun" { print $3, "rows" }')"
}

echo "An array of four shards, two of which are cut off:"
id=$(array result.npy "${work[@]}")
cut_off "$id" 0 KILL
cut_off "$id" 1 TERM
merged=$(merge "$id" result.npy)
tell "$id"
tell "$merged"
cat deldot-"$id"_*.log "deldot-merge-$merged.log"

echo "One run of all rows:"
node "$root/dist/cli.js" "${work[@]}" --out whole.npy >whole.log
cmp result.npy whole.npy
cmp result.base.npy whole.base.npy
echo "has the same bits"

echo "An array of what no retry mends:"
id=$(array none.npy logprob nowhere.safetensors --points points.npy)
merged=$(merge "$id" none.npy)
tell "$id"
tell "$merged"
cat "deldot-${id}_0.log"
