"""The settings of a small run as plain values."""

VALUES = {
    "name": "test-run",
    "root": "runs/test",
    "container_image": "registry.example/terrapair:1",
    "catalogs": [{"layout": "stac", "path": "items.ndjson"}],
    "pairs": {"patch": {"size_px": 32}},
    "probe": {},
    "pretrain": {
        "encoder": {"backbone": "small", "embedding_dim": 8},
        "num_steps": 2,
        "global_batch_size": 4,
    },
    "tasks": [
        {
            "name": "flood",
            "label": {"schema": "water", "label_from": "s1"},
            "quality": {"max_cloud_fraction": 1.0},
            "segment": {
                "sensors": ["s1"],
                "label_schema": "water",
                "encoder": {"backbone": "small", "embedding_dim": 8},
                "num_steps": 2,
                "global_batch_size": 4,
            },
            "min_mean_iou": 0.25,
            "min_iou": {"water": 0.125},
        }
    ],
}
