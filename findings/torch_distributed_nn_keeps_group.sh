#!/usr/bin/env bash
# torch 2.13.0, torch.distributed with gloo on the CPU, two processes.
# Guess: after destroy_process_group nothing of the group is left, whatever else was imported meanwhile.
# Seen: torch.distributed.nn.functional, imported while a group stands (parts of torch do that by themselves), has that
# group in the default arguments of ten functions. Group and threads of gloo then live as long as the interpreter.
# Imported before the group is made, it holds None, and the threads end with the group.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/group.py" <<'PYTHON'
import glob
import inspect
import sys

import torch.distributed as dist


def threads():
    names = [open(name).read().strip() for name in glob.glob("/proc/self/task/*/comm")]
    return sum("gloo" in name for name in names)


if sys.argv[1] == "before":
    import torch.distributed.nn.functional
dist.init_process_group("gloo")
import torch.distributed.nn.functional as functional

found = [None, None]
dist.all_gather_object(found, dist.get_rank())
during, first = threads(), dist.get_rank() == 0
dist.destroy_process_group()
held = sum(
    isinstance(p.default, dist.ProcessGroup)
    for f in vars(functional).values()
    if inspect.isfunction(f) and f.__module__ == functional.__name__
    for p in inspect.signature(f).parameters.values()
)
if first:
    print(f"imported {sys.argv[1]} the group: {held} defaults hold it, {during} threads, {threads()} after its end")
PYTHON
for when in before after; do
    OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore -m torch.distributed.run --nproc-per-node 2 --standalone \
        "$folder/group.py" "$when" | tee -a "$folder/seen"
done
grep -q "before the group: 0 defaults hold it, .* 0 after its end" "$folder/seen"
grep -q "after the group: 10 defaults hold it, 3 threads, 3 after its end" "$folder/seen"
