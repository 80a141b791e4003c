"""Three examples of every verb, as `--help` shows them behind the program's name; tests parse each."""

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "": (
        "",
        "run --reducers tome,evit,dtem --flops=-35%",
        "check my.py:Mine --against tome",
    ),
    "run": (
        "run --reducers tome,evit --flops=-35%,-60% --out results/first",
        "run --task imagenet --data DIR --model deit_small_patch16_224",
        "run sweep.yaml --limit 1000",
    ),
    "plan": (
        "plan --reducers tome,evit --flops=-35%",
        "plan --task imagenet --data DIR --models 'deit_*'",
        "plan sweep.yaml",
    ),
    "report": (
        "report results/first",
        "report results/deit --json",
        "report results/scenes-scenes_vit",
    ),
    "watch": ("watch results/first", "watch results/first --once", "watch results/deit --every 30"),
    "doctor": ("doctor", "doctor --json", "doctor --debug"),
    "train": (
        "train dtem",
        "train dtem --steps 300 --lr 1e-4 --rate r=16",
        "train tome --task scenes-caption --out results/train/mine",
    ),
    "tables": (
        "tables",
        "tables dtem-1 --flops-only",
        "tables tome-4 --data DIR --format latex",
    ),
    "pareto": (
        "pareto results/first",
        "pareto results/deit-s results/deit-b --published dtem-1,tome",
        "pareto results/first --x flops --reducers tome --width column",
    ),
    "break-even": (
        "break-even",
        "break-even --reducers tome,evit --rates r=13 --batches 1,8,64",
        "break-even --model deit_small_patch16_224 --checkpoint none",
    ),
    "predict": (
        "predict --gpu h100 --model deit_small_patch16_224",
        "predict --gpu a100,rtx4090 --reducers tome,evit --batch 1,64,256",
        "predict --fit --out results/predict",
    ),
    "gpu": ("gpu", "gpu --minutes 30", "gpu --show results/gpu/FILE.json"),
    "score": (
        "score --captions results.json --data captions_val2014.json",
        "score --captions results.json --data /data/coco",
        "score --captions results.json --data coco --task-option split=val",
    ),
    "export": (
        "export --reducer tome --rate r=13 --out exported",
        "export --reducer evit --rate keep=0.7 --format openvino --batch 8",
        "export --reducer dtem --rate r=11 --batch dynamic --out DIR",
    ),
    "latency": (
        "latency",
        "latency --reducers tome --runtime eager,onnxruntime --batches 1,8",
        "latency --reducers tome,evit --callers 4",
    ),
    "int8": (
        "int8",
        "int8 --reducers tome,evit,dtem --rate flops=-35%",
        "int8 --samples 300 --calibration 64",
    ),
    "merge": (
        "merge results/here results/there --out results/both",
        "merge results/a results/b --out results/c --prefer results/a",
        "merge results/first results/gpu/FILE.json --out results/timed",
    ),
    "fetch": ("fetch spice", "fetch spice --from /mirror/maven", "fetch spice --from https://HOST/maven2"),
    "compare": (
        "compare results/first:tome results/first:evit",
        "compare 'results/a:tome flops=-35%' 'results/a:evit flops=-35%'",
        "compare results/first scenes-tome --markdown summary.md",
    ),
    "check": (
        "check my.py:Mine --against tome",
        "check my.py:Mine --against scenes-tome --junit junit.xml",
        "check evit --against tome --flops=-50% --margin 1",
    ),
    "list": ("list reducers", "list models 'deit_*'", "list --check my.py:Mine"),
    "list reducers": ("list reducers", "list reducers --json", "list reducers --help"),
    "list models": ("list models", "list models 'vit_small*'", "list models 'deit_*' --json"),
    "list tasks": ("list tasks", "list tasks --json", "list tasks --help"),
    "list recipes": ("list recipes", "list recipes dtem", "list recipes dtem --json"),
    "view": (
        "view tokens --reducers tome,evit --flops=-50%",
        "view tokens --image dog.jpg --model deit_small_patch16_224",
        "view masks --task scenes-seg --reducers tome --rates merge=0.8",
    ),
    "view tokens": (
        "view tokens --reducers tome,dtem,evit --flops=-50%",
        "view tokens --image dog.jpg --model scenes_vit --rate r=13",
        "view tokens --samples test/00001 --blocks all --out tokens.svg",
    ),
    "view masks": (
        "view masks --task scenes-seg",
        "view masks --task scenes-seg --reducers tome --rates merge=0.8",
        "view masks --task scenes-seg --samples test/00004 --out masks.pdf",
    ),
    "baseline": (
        "baseline save scenes-tome results/first:tome",
        "baseline list",
        "baseline show scenes-tome",
    ),
    "baseline save": (
        "baseline save scenes-tome results/first:tome",
        "baseline save all results/first --force",
        "baseline save one 'results/first:tome flops=-35%'",
    ),
    "baseline list": ("baseline list", "baseline list --folder ci/baselines", "baseline list --json"),
    "baseline show": (
        "baseline show scenes-tome",
        "baseline show baselines/scenes-tome.parquet",
        "baseline show scenes-tome --json",
    ),
    "analyse": (
        "analyse trained --seeds 0",
        "analyse drift --limit 200 --flops=-35%,-60%",
        "analyse patterns --images 16",
    ),
    "analyse correlation": (
        "analyse correlation",
        "analyse correlation --rate r=13 --limit 200",
        "analyse correlation --weights embedded --weights none",
    ),
    "analyse drift": (
        "analyse drift --limit 200",
        "analyse drift --reducers tome --flops=-35%,-60% --precisions bf16",
        "analyse drift --device cuda",
    ),
    "analyse patterns": (
        "analyse patterns --images 16",
        "analyse patterns --reducers tome,evit,random --flops=-60%",
        "analyse patterns --limit 200 --out results/patterns",
    ),
    "analyse ablation": (
        "analyse ablation --seeds 0",
        "analyse ablation --flops=-60% --steps 150",
        "analyse ablation --train-limit 2000",
    ),
    "analyse data": (
        "analyse data",
        "analyse data --samples 256,4096 --updates 25,100",
        "analyse data --flops=-60% --limit 500",
    ),
    "analyse trained": (
        "analyse trained --seeds 0",
        "analyse trained --methods dtem,mctf --steps 150",
        "analyse trained --against 'mctf trained'",
    ),
}
