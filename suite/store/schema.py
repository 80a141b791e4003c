"""Every file of a run's folder, and every field in it.

run.json           schema; spec: the RunSpec that was run last; identity: what all cells share and no later command may
                   change (data, weights, versions, precision, ...); cells: keys of the cells that belong to the run;
                   slots: what each of them measures; shown: what the task reports, as `Shown` names it
environment.json   packages, machine and git state of the process that wrote the run first
manifest.parquet   id, label (class index, or list of reference captions) of the expected samples, in order
missing.jsonl      id, path, reason of each sample that could not be read
cells/<key>/       one cell: (task, model, reducer, rate, precision), see below
exhibits/          thumbnails, views and token groups for the page; made from data and model, safe to delete
report/            page, tables and plots, made from the rest and safe to delete

A cell's folder:
cell.json          what the cell is; written before it runs (CELL)
flops.json         multiply-accumulates per image, as `FlopReport` names them; baseline_total: the unreduced model;
                   images: how many were counted; total_p5, total_p95: percentiles over them (total is their mean) and
                   tokens_mean, tokens_p5, tokens_p95: tokens leaving the last block, all null unless they depend on it;
                   untraced: why total is what was dispatched, "" where it is the trace's;
                   further: costs beyond the backbone's, by the names in run.json's shown.costs
samples/batch-*.parquet   outcomes of one batch (the task's `outcomes`), written atomically as soon as it is predicted
samples.parquet    the same, all batches, once the cell is complete
accuracy.json      batch_size: the largest forward that ran (smaller than asked after an out-of-memory)
scores.json        scores: value, low, high (95 %) and, where there is no value, reason of every metric; notes; of: hash
                   of the outcomes and scorers that they were made of
scores.parquet     scores of every sample, for tasks whose outcomes do not say them already
speed.json         the backbone: rates, ratios and raw rounds, as `SpeedResult` names them
whole_speed.json   the same of the whole model, where it is more than a backbone
failed.json        reason; present while the last attempt failed
"""

from __future__ import annotations

SCHEMA = 3

CELL = {
    "key": "hash of everything that can change the cell's numbers; names its folder",
    "task": "task name",
    "model": "model name",
    "weights": "where the weights came from",
    "weights_kind": "'trained' or 'random'",
    "reducer": "registered name or path/to/file.py:ClassName",
    "options": "the method's options that were set",
    "learned": "what the method has to learn, e.g. 'embedding'; null: training-free",
    "reducer_weights": "{source, sha256} of the trained weights that the method was given; null: none",
    "formulation": "which of several formulations of attention was run; null: the method has one",
    "restore": "when a dense model gets its tokens back, e.g. 'before_decoder'; null: it never does",
    "rate": "as asked, e.g. 'flops=-35%'; '' for the unreduced model",
    "resolved_rate": "what it came to, e.g. 'r=11'; equal to rate unless that was a FLOPs target; null: unresolved",
    "solved_reduction": "change of FLOPs that solving promised; null if nothing was solved",
    "neighbours": "[rate, reduction] on both sides of a FLOPs target that no rate meets within one point",
    "precision": "fp32, fp16 or bf16",
    "batch_size": "samples in a batch",
    "image_size": "side in pixels; null: the model's own",
    "depth": "blocks",
    "tokens_in": "tokens that enter the first block, prefix included",
    "planned_counts": "tokens leaving each block; null where they depend on the image",
}
