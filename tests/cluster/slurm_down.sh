#!/usr/bin/env bash
# Ends all jobs of the Slurm that slurm_up.sh FOLDER brought up, and then its daemons, and nobody else's.
folder=$(realpath -m "${1:?usage: slurm_down.sh FOLDER}")
export SLURM_CONF=$folder/slurm.conf
scancel --full --user="$(id -un)" 2>/dev/null
for _ in $(seq 20); do
    [[ -z $(squeue -h 2>/dev/null) ]] && break
    sleep 0.25
done
for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid" "$folder/munged.pid"; do
    [[ -s $file ]] && kill "$(<"$file")" 2>/dev/null
done
exit 0
