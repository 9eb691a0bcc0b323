#!/bin/bash
# sbatch slurm.sh: a process a machine, with all GPUs of it.
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --requeue

PROCESSES=4
[ "$SLURM_NTASKS" = "$PROCESSES" ] || exit 1
export KERAS_BACKEND=jax
# JAX gives each process of Slurm one GPU, unless it is told of all.
export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7
srun --kill-on-bad-exit python train.py "$PROCESSES" recipe.toml photos runs/mine
