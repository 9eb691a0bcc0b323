#!/bin/bash
# bash tpu_pod.sh NAME ZONE: on all machines of a pod of TPUs, here 4.
PROCESSES=4
gcloud compute tpus tpu-vm ssh "$1" --zone "$2" --worker=all --command "
  export KERAS_BACKEND=jax WORLD_SIZE=$PROCESSES
  python train.py $PROCESSES recipe.toml photos runs/mine"
