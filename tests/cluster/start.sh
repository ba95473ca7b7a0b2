#!/usr/bin/env bash
# Starts a one-node SLURM as plain daemons: `start.sh [FOLDER]`. Everything it has (configuration, key, spool, state, pids, logs) is in
# FOLDER (default $SCORE_CLUSTER or /tmp/score-cluster) and its ports are its own, so clusters in two folders do not meet.
# The node claims 16 CPUs, 1 TB of memory and 8 GPUs whatever the machine has: scheduling is real, the GPUs are only numbers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "${1:-${SCORE_CLUSTER:-/tmp/score-cluster}}")
export PATH="$PATH:/usr/sbin" SLURM_CONF="$folder/slurm.conf"
fail() { echo "error: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "starting the test cluster needs root (run it with sudo)"
command -v slurmctld munged >/dev/null || fail "SLURM is not installed (mend it with: $here/install.sh)"
[ ${#folder} -le 60 ] || fail "$folder is too long a name for SLURM's sockets: take a shorter one"
mkdir -p "$folder/log"
exec 9>"$folder/lock"
flock --nonblock 9 || fail "another start.sh is at work in $folder"
if alive=$(bash "$here/stop.sh" --list "$folder") && [ -n "$alive" ]; then
  fail "a cluster runs already in $folder: use it (source $folder/env.sh) or end it ($here/stop.sh $folder)"
fi
bash "$here/stop.sh" "$folder" >/dev/null     # what a crash left behind; a fresh cluster knows no old jobs
mkdir -p "$folder"/{munge,spool,state,run}
chmod 755 "$folder" "$folder/munge"

# Two ports that are free now.
read -r controller_port node_port < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')
host=$(hostname -s)

cat >"$folder/slurm.conf" <<CONF
ClusterName=score
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has run out: 120 s unless told otherwise.
AuthInfo=socket=$folder/munge/socket,cred_expire=15
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
MailProg=/bin/true
# No cgroups (they need systemd or a delegated tree) and no accounting: that is the harder case, squeue has to do.
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SlurmdParameters=config_overrides
GresTypes=gpu
PropagateResourceLimits=NONE
# What tests provoke happens soon. A busy machine still gets the time to answer.
KillWait=5
OverTimeLimit=0
MinJobAge=7200
SlurmdTimeout=30
MessageTimeout=30
BatchStartTimeout=60
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
ReturnToService=2
# Preempted jobs are requeued. Raise a partition's PriorityTier with scontrol to make it preempt the other.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=1000000 Gres=gpu:8 State=UNKNOWN
PartitionName=gpu Nodes=$host MaxTime=INFINITE DefaultTime=60 OverSubscribe=NO PriorityTier=1 State=UP
PartitionName=cpu Nodes=$host MaxTime=INFINITE DefaultTime=60 OverSubscribe=NO PriorityTier=1 Default=YES State=UP
CONF
# A GPU needs a device file, else the node drains ("count reported lower than configured"); terminals are on every machine.
echo 'Name=gpu File=/dev/tty[0-7]' >"$folder/gres.conf"
# Snakemake's job step drops SLURM_CONF before it calls srun, which would then look for a cluster of /etc/slurm: this srun remembers.
mkdir -p "$folder/bin"
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(PATH=/usr/bin:/bin command -v srun)" >"$folder/bin/srun"
chmod 755 "$folder/bin/srun"
cat >"$folder/env.sh" <<ENV
export SLURM_CONF=$folder/slurm.conf SCORE_CLUSTER=$folder APPTAINER_USERNS=1
case ":\$PATH:" in *":$folder/bin:"*) ;; *) PATH="$folder/bin:\$PATH" ;; esac
ENV

trap 'tail -n 5 "$folder"/log/*.log >&2; bash "$here/stop.sh" "$folder" >&2; fail "the cluster did not start; its logs are in $folder/log"' ERR
(umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
# The lock (9) is closed for the daemons: they would hold it for as long as they run.
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/run/munged.pid" \
  --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" 9>&-
slurmctld -f "$SLURM_CONF" 9>&-
slurmd -f "$SLURM_CONF" 9>&-
for _ in $(seq 60); do
  if [ "$(timeout 10 sinfo -h -o '%P %T' 2>/dev/null | grep -c ' idle$')" = 2 ]; then
    echo "a cluster of 16 CPUs and 8 GPUs runs in $folder; to use it: source $folder/env.sh"
    exit 0
  fi
  sleep 1
done
false
