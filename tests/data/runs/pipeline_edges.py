"""The edges of the pipeline of a run with one task, flood: node -> nodes that it waits for."""

DATA_EDGES = {
    "ImportExampleGen-{}": set(),
    "DataManifest-{}": {"ImportExampleGen-{}"},
    "StatisticsGen-{}": {"ImportExampleGen-{}"},
    "SchemaGen-{}": {"StatisticsGen-{}"},
    "DriftCheck-{}": {
        "ImportExampleGen-{}",
        "StatisticsGen-{}",
        "SchemaGen-{}",
        "DataManifest-{}",
    },
    "ExampleValidator-{}": {"StatisticsGen-{}", "DriftCheck-{}"},
    "DriftGate-{}": {"DriftCheck-{}", "ExampleValidator-{}"},
}
EDGES = {
    "OverlapAudit-flood": {"ImportExampleGen-pairs", "ImportExampleGen-flood"},
    "OverlapGate-flood": {"OverlapAudit-flood"},
    "Trainer-pretrain": {
        "ImportExampleGen-pairs",
        "DataManifest-pairs",
        "OverlapGate-flood",
        "DriftGate-pairs",
        "DriftGate-flood",
    },
    "EncoderProbe": {
        "Trainer-pretrain",
        "ImportExampleGen-pairs",
        "DataManifest-pairs",
        "DriftCheck-pairs",
        "ImportExampleGen-flood",
        "DataManifest-flood",
    },
    "Canary-encoder": {"Trainer-pretrain"},
    "Pusher-encoder": {"Trainer-pretrain", "EncoderProbe", "Canary-encoder"},
    "EncoderGate": {"EncoderProbe", "Pusher-encoder"},
    "Trainer-flood": {
        "ImportExampleGen-flood",
        "DataManifest-flood",
        "Trainer-pretrain",
        "OverlapGate-flood",
        "DriftGate-flood",
        "EncoderGate",
    },
    "Scorer-flood": {"ImportExampleGen-flood", "DataManifest-flood", "Trainer-flood"},
    "Evaluator-flood": {"ImportExampleGen-flood", "Trainer-flood"},
    "ChampionGate-flood": {
        "ImportExampleGen-flood",
        "DataManifest-flood",
        "Trainer-flood",
        "Scorer-flood",
        "Evaluator-flood",
        "DriftCheck-flood",
    },
    "Canary-flood": {"Trainer-flood"},
    "Pusher-flood": {"Trainer-flood", "ChampionGate-flood", "Canary-flood"},
    **{
        task.format(name): {parent.format(name) for parent in parents}
        for name in ("pairs", "flood")
        for task, parents in DATA_EDGES.items()
    },
}
