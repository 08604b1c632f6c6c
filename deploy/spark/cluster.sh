#!/usr/bin/env bash
# A Spark 3.5 standalone cluster on loopback, to try the data jobs on. A cluster of many machines has Spark's own scripts.
#
#   cluster.sh launcher JAR OUT.jar     make the jar that --spark_job_server_jar names of the job server of `pom.xml`, which lacks Spark
#   cluster.sh up STATE [WORKERS]       start it; STATE is a folder for logs and process ids
#   cluster.sh kill STATE N             kill -9 of worker N with all that it started, as if its machine were lost
#   cluster.sh down STATE               end it
#
# SPARK_HOME is a Spark of 3.5, or the folder `pyspark` of the PyPI package pyspark. SPARK_PORT is the port of the master [7077], the next
# one is that of its web page. TERRAPAIR_PYTHON is the Python of the workers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../processes.sh"
[ $# -ge 2 ] || fail "usage: cluster.sh launcher JAR OUT.jar, or cluster.sh up|kill|down STATE [N]"
what=$1 number=${3:-2} port=${SPARK_PORT:-7077}

has_workers() { curl -sf "http://127.0.0.1:$((port + 1))/json/" | grep -q "\"aliveworkers\" *: *$number,"; }

check_home() {
  need_java
  : "${SPARK_HOME:?names the folder of Spark, which holds jars/}"
  ls "$SPARK_HOME"/jars/spark-core_*.jar > /dev/null 2>&1 || fail "SPARK_HOME=$SPARK_HOME: has no jars/spark-core_*.jar"
}

case $what in
  launcher)
    check_home
    # A jar of nothing but a Class-Path. The lines of a manifest end after 72 bytes, so each jar has one of its own.
    scratch=$(mktemp -d)
    {
      printf 'Main-Class: org.apache.beam.runners.spark.SparkJobServerDriver\nClass-Path:'
      for jar in "$(realpath "$2")" "$(realpath "$SPARK_HOME")"/jars/*.jar; do printf ' \n  file://%s' "$jar"; done
      # Spark reaches into Java's own packages (source: JavaModuleOptions.java of Spark 3.5).
      printf '\nAdd-Opens:'
      for package in java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.util java.util.concurrent \
        java.util.concurrent.atomic jdk.internal.ref sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar; do
        printf ' \n  java.base/%s' "$package"
      done
      echo
    } > "$scratch/MANIFEST.MF"
    jar cfm "$3" "$scratch/MANIFEST.MF"
    rm -r "$scratch" ;;
  up)
    check_home
    state=$(realpath -m "$2")
    mkdir -p "$state"
    export PATH="$(cd "$here/.." && pwd):$PATH" PYTHONPATH="$(cd "$here/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
    export SPARK_LOCAL_IP=127.0.0.1 SPARK_DAEMON_MEMORY=512m SPARK_LOCAL_DIRS=$state/tmp
    run master "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host 127.0.0.1 --port "$port" --webui-port "$((port + 1))"
    for n in $(seq "$number"); do
      run "worker$n" "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --cores 1 --memory 1g \
        --work-dir "$state/work$n" --webui-port 0 "spark://127.0.0.1:$port"
    done
    wait_until 300 "$number workers" has_workers ;;
  kill) state=$(realpath -m "$2"); kill -KILL -- "-$(cat "$state/worker$number.pid")" ;;
  down) state=$(realpath -m "$2"); down ;;
  *) fail "cluster.sh knows launcher, up, kill and down, got $what" ;;
esac
