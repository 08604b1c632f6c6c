"""Engines: what a job needs when a cluster runs it, and the rules that it checks first.

- `checks`: the checks before a job starts. Read this first.
- `job_servers`: Beam's job server, a Java program that speaks to Flink and Spark.
- `flink`: what a Flink cluster says of itself, and how a job on it is cancelled.
- `spark`: whether a Spark master answers.
- `claims`: which run may write into a folder; the job of a killed run may not.
- `running`: one pipeline from its checks to its end.

The drivers of `build`, `predict` and `collect` import this room. `docs/runners.md`
tells users what it checks.
"""
