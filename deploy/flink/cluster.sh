#!/usr/bin/env bash
# A Flink cluster on loopback, to try the data jobs on. A cluster of many machines has Flink's own scripts.
#
#   cluster.sh up STATE [TASKMANAGERS]   start it; STATE is a folder for logs and process ids
#   cluster.sh kill STATE N              kill -9 of TaskManager N alone; its Python workers go on for a while
#   cluster.sh down STATE                end it
#
# FLINK_HOME is a Flink of 1.19, or the folder `pyflink` of the PyPI package apache-flink-libraries. FLINK_PORT is the port of its REST
# interface [8081], the next one is that of its JobManager. FLINK_JARS are jars beside Flink's own, joined by colons: with Beam's job server
# among them, Python workers live as long as --environment_cache_millis says. FLINK_OPTIONS are further options of the JobManager, such as
# "-D restart-strategy.type=none". TERRAPAIR_PYTHON is the Python of the workers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../processes.sh"
[ $# -ge 2 ] || fail "usage: cluster.sh up|kill|down STATE [N]"
what=$1 state=$(realpath -m "$2") number=${3:-2} port=${FLINK_PORT:-8081}

has_taskmanagers() { curl -sf "http://localhost:$port/overview" | grep -q "\"taskmanagers\":$number,"; }

# Flink 1.19 reaches into Java's own packages (source: env.java.opts.all in the config.yaml of its distribution).
opens=()
for package in java.base/java.lang java.base/java.net java.base/java.io java.base/java.nio java.base/sun.nio.ch java.base/java.lang.reflect \
  java.base/java.text java.base/java.time java.base/java.util java.base/java.util.concurrent java.base/java.util.concurrent.atomic \
  java.base/java.util.concurrent.locks; do
  opens+=("--add-opens=$package=ALL-UNNAMED")
done
for package in java.base/sun.net.util java.rmi/sun.rmi.registry java.security.jgss/sun.security.krb5; do
  opens+=("--add-exports=$package=ALL-UNNAMED")
done

case $what in
  up)
    need_java
    home=${FLINK_HOME:?names the folder of Flink, which holds lib/}
    ls "$home"/lib/flink-dist*.jar > /dev/null 2>&1 || fail "FLINK_HOME=$home: has no lib/flink-dist*.jar"
    mkdir -p "$state"
    cp "$here/config.yaml" "$here/log4j.properties" "$state"
    # Workers are found by name, and run the code of this checkout.
    export PATH="$(cd "$here/.." && pwd):$PATH" PYTHONPATH="$(cd "$here/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
    jars="$home/lib/*${FLINK_JARS:+:$FLINK_JARS}"
    log="-Dlog4j.configurationFile=file:$state/log4j.properties"
    ports=(-D "rest.port=$port" -D "jobmanager.rpc.port=$((port + 1))")
    # shellcheck disable=SC2086 # FLINK_OPTIONS are several words
    run jobmanager java -Xmx512m "${opens[@]}" "$log" -cp "$jars" \
      org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$state" --executionMode cluster "${ports[@]}" ${FLINK_OPTIONS:-}
    # Flink computes the sizes of heap and buffers from config.yaml: first the options of Java, then those of the TaskManager.
    sizes=$(java -cp "$home/bin/bash-java-utils.jar:$home/lib/*" "$log" org.apache.flink.runtime.util.bash.BashJavaUtils GET_TM_RESOURCE_PARAMS \
      --configDir "$state" 2> /dev/null | sed -n 's/^.*BASH_JAVA_UTILS_EXEC_RESULT://p')
    for n in $(seq "$number"); do
      # shellcheck disable=SC2046 # several words each
      run "taskmanager$n" java $(sed -n 1p <<< "$sizes") "${opens[@]}" "$log" -cp "$jars" \
        org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$state" $(sed -n 2p <<< "$sizes") "${ports[@]}" \
        -D "taskmanager.resource-id=tm$n"
    done
    wait_until 300 "$number TaskManagers" has_taskmanagers ;;
  kill) kill -KILL "$(cat "$state/taskmanager$number.pid")" ;;
  down) down ;;
  *) fail "cluster.sh knows up, kill and down, got $what" ;;
esac
