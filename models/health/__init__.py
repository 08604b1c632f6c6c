"""Health of pretraining: what the embeddings can and cannot do, and when training must stop."""
