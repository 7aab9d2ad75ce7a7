#!/usr/bin/env bash
# A Slurm on loopback, with partitions cpu and gpu, without systemd or cgroups, all of it in one folder.
# With NODES above 1 this machine plays several nodes (n1, n2, ...), which all are in both partitions.
# An existing Slurm of this machine is not touched: own ports, own munge key and socket, own slurm.conf (SLURM_CONF).
# Needs slurmctld slurmd slurm-client munge (Debian); root installs them if they are missing. Exit code 3: cannot.
# Usage: slurm_up.sh FOLDER [NODES], then export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
folder=$(realpath -m "${1:?usage: slurm_up.sh FOLDER [NODES]}")
n_nodes=${2:-1}
host=$(hostname -s)
PATH=$PATH:/usr/sbin:/sbin

refuse() {
    echo "$*" >&2
    exit 3
}

# No daemon may start at installation, and a policy-rc.d that was there before stays as it was.
install_packages() {
    [[ $(id -u) == 0 ]] || refuse "Slurm is not installed, and installing it needs root"
    command -v apt-get >/dev/null || refuse "Slurm is not installed, and there is no apt-get to install it"
    local policy=/usr/sbin/policy-rc.d made=no code=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get -o DPkg::Lock::Timeout=300 update -qq &&
            apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
                slurmctld slurmd slurm-client munge
    } >&2 || code=$?
    [[ $made == no ]] || rm -f $policy
    [[ $code == 0 ]] || refuse "Slurm cannot be installed from Debian here (apt-get: $code)"
}

command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null || install_packages

mkdir -p "$folder"/{state,log}
chmod 700 "$folder"
[[ -s $folder/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
# --force: the socket is ours alone, and munged would rather everybody could reach it.
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" 2>>"$folder/log/munged.log"

read -r controller_port node_ports < <(python3 -c '
import socket, sys
found = [socket.socket() for _ in range(1 + int(sys.argv[1]))]
for one in found:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in found))' "$n_nodes")

cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.txt
ReturnToService=2
SlurmctldPort=$controller_port
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=1,bf_interval=1
MinJobAge=600
KillWait=10
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
PartitionName=cpu Default=YES
PartitionName=gpu Default=NO
CONF
nodes=()
for port in $node_ports; do
    nodes+=("n$((${#nodes[@]} + 1))")
    echo "NodeName=${nodes[-1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=$(nproc)" >>"$folder/slurm.conf"
done
echo 'CgroupAutomount=no' >"$folder/cgroup.conf"
export SLURM_CONF=$folder/slurm.conf

slurmctld -c
for node in "${nodes[@]}"; do slurmd -N "$node"; done
for _ in $(seq 120); do
    # Every node once, and nothing but idle.
    [[ $(sinfo -h -N -p cpu -o '%T' 2>/dev/null | sort | uniq -c | xargs) == "$n_nodes idle" ]] && { sinfo; exit 0; }
    sleep 0.5
done
tail -n 20 "$folder"/log/slurm*.log >&2
echo "not all nodes came up within 60 s" >&2
exit 1
