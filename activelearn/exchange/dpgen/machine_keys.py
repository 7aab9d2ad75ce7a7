"""Keys of ``machine.json``, and their treatment."""

from __future__ import annotations

from typing import Final

from activelearn.exchange.dpgen.keys import DpgenKey, Fate

#: In the order of DP-GEN's own table.
MACHINE: Final = (
    DpgenKey(("_*", "**._*"), Fate.LEFT_OUT, "", "a comment"),
    DpgenKey(("api_version", "deepmd_version"), Fate.LEFT_OUT, "", "each interpreter reports its own"),
    DpgenKey(("train.export_command",), Fate.LEFT_OUT, "", "models are frozen by the interpreter that trains"),
    DpgenKey(
        ("train.command",),
        Fate.CHANGED,
        "places.train.python",
        "an absolute path to dp selects the interpreter next to it; dp alone: that of activelearn",
    ),
    DpgenKey(
        ("model_devi.command",),
        Fate.TAKEN,
        "places.model_devi.lammps",
        "without -i and -v; lmp alone: that of deepmd-kit, started once per node",
    ),
    DpgenKey(("fp.command",), Fate.TAKEN, "label.reference.command", "of fp_style vasp; without `|| :`"),
    DpgenKey(
        ("*.machine.batch_type", "*.resources.batch_type"),
        Fate.TAKEN,
        "places.*.queue",
        "Slurm, PBS, Torque, SGE, LSF; Shell: slots of this computer; others have no counterpart",
    ),
    DpgenKey(
        ("*.machine.context_type",),
        Fate.CHANGED,
        "",
        "commands are run on the machine with the queue",
    ),
    DpgenKey(
        (
            "*.machine.remote_profile.**",
            "*.machine.input_data.**",
            "*.machine.hostname",
            "*.machine.port",
            "*.machine.username",
            "*.machine.password",
        ),
        Fate.LEFT_OUT,
        "",
        "nothing is sent by ssh or to a cloud, and no password is ever copied",
    ),
    DpgenKey(
        (
            "*.machine.local_root",
            "*.machine.remote_root",
            "*.machine.work_path",
            "*.machine.clean_asynchronously",
            "*.machine.create_remote_root",
        ),
        Fate.LEFT_OUT,
        "scratch",
        "engines work in scratch/ of the campaign folder",
    ),
    DpgenKey(("*.machine.retry_count",), Fate.TAKEN, "max_attempts", ""),
    DpgenKey(("*.resources.number_node",), Fate.TAKEN, "places.*.queue.nodes", ""),
    DpgenKey(("*.resources.cpu_per_node",), Fate.TAKEN, "places.*.queue.cpus_per_task", ""),
    DpgenKey(("*.resources.gpu_per_node",), Fate.TAKEN, "places.*.queue.gres, places.*.gpus", ""),
    DpgenKey(("*.resources.queue_name",), Fate.TAKEN, "places.*.queue.partition", ""),
    DpgenKey(
        ("*.resources.group_size", "*.group_size"),
        Fate.CHANGED,
        "chunks",
        "DP-GEN: tasks per job; here: jobs per station (chunks, to be set by hand)",
    ),
    DpgenKey(("*.resources.para_deg",), Fate.TAKEN, "places.*.slots", "tasks of a job in parallel"),
    DpgenKey(
        ("*.resources.custom_flags",),
        Fate.CHANGED,
        "places.*.queue",
        "walltime, memory, account, qos, constraint and gres are taken, other flags are reported",
    ),
    DpgenKey(
        ("*.resources.strategy.if_cuda_multi_devices",), Fate.TAKEN, "places.*.gpus", "slots take turns on the GPUs"
    ),
    DpgenKey(("*.resources.strategy.ratio_unfinished",), Fate.LEFT_OUT, "", "run --refuse-infrastructure-failures N"),
    DpgenKey(
        ("*.resources.strategy.**", "*.resources.kwargs.**", "*.machine.kwargs.**"),
        Fate.LEFT_OUT,
        "",
        "of dpdispatcher's own scripts",
    ),
    DpgenKey(
        (
            "*.resources.source_list",
            "*.resources.module_list",
            "*.resources.module_unload_list",
            "*.resources.module_purge",
            "*.resources.prepend_script",
        ),
        Fate.TAKEN,
        "places.*.setup",
        "lines of bash before the worker starts",
    ),
    DpgenKey(
        ("*.resources.envs.**",),
        Fate.TAKEN,
        "places.*.environment",
        "with $ in it: a line `export` of setup; what looks like a secret is left out",
    ),
    DpgenKey(("*.resources.append_script",), Fate.LEFT_OUT, "", "nothing runs after a worker"),
    DpgenKey(("*.resources.wait_time",), Fate.LEFT_OUT, "", "workers wait for work, not the driver"),
    DpgenKey(("*.user_forward_files", "*.user_backward_files"), Fate.LEFT_OUT, "", "all nodes see the campaign folder"),
    DpgenKey(
        (
            "*_machine.**",
            "*_resources.**",
            "*_command",
            "*_group_size",
            "deepmd_path",
            "python_path",
            "lmp_path",
            "*.deepmd_path",
            "*.machine.machine_type",
            "*.machine.batch",
            "*.machine.ali_auth.**",
            "*.resources.numb_node",
            "*.resources.numb_gpu",
            "*.resources.task_per_node",
            "*.resources.node_cpu",
            "*.resources.partition",
            "*.resources.exclude_list",
            "*.resources.mem_limit",
            "*.resources.time_limit",
            "*.resources.qos",
            "*.resources.with_mpi",
            "*.resources.allow_failure",
            "*.resources.job_name",
            "*.resources.cvasp",
            "*.resources.account",
        ),
        Fate.REFUSED,
        "--machine",
        "the form of before api_version 1.0: no profile is made; start from activelearn machine --init slurm",
    ),
    DpgenKey(("handlers.**",), Fate.LEFT_OUT, "", "mail is sent by the queue"),
)
