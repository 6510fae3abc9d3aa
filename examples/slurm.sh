#!/usr/bin/env bash
# sbatch examples/slurm.sh PRESET --data.path ... --out ...: one task a node, torchrun starts a process for each GPU.
#SBATCH --job-name=tessera
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -uo pipefail
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" --rdzv_backend c10d \
  --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$head_node:29400" -m tessera train "$@"
status=$?
newest=$(ls -d "$(printf '%s\n' "$@" | sed -n '/^--out$/{n;p}')"/step-* 2>/dev/null | tail -n 1)
# Asked to stop, or a node died: what is saved goes on. A run that fails each time is given up.
if [ "$status" -ne 0 ] && [ -n "$newest" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  echo "Going on from $newest in the next allocation."
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
