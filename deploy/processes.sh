# Functions of the scripts that run a cluster on this machine. `state` is the folder of process ids and logs.

# fail MESSAGE: end with one line
fail() { echo "error: $*" >&2; exit 2; }

# need_java: end unless there is a Java that Beam, Flink and Spark all run on
need_java() {
  command -v java > /dev/null || fail "java is missing: install Java 11 or 17 (apt-get install openjdk-17-jre-headless)"
}

# run NAME COMMAND...: start a process in a group of its own, with a log
run() {
  local name=$1; shift
  setsid "$@" > "$state/$name.log" 2>&1 < /dev/null & echo $! > "$state/$name.pid"
}

# wait_until SECONDS WHAT COMMAND...: until the command succeeds
wait_until() {
  local seconds=$1 what=$2; shift 2
  for _ in $(seq $((2 * seconds))); do "$@" > /dev/null 2>&1 && return; sleep 0.5; done
  fail "no $what after $seconds s: see $state/*.log"
}

# down: end all processes of the cluster, and wait for them
down() {
  local file pid
  for file in "$state"/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    # The group: a worker that was killed leaves processes that it started.
    kill -TERM -- "-$pid" 2> /dev/null || true
    for _ in $(seq 20); do kill -0 -- "-$pid" 2> /dev/null || break; sleep 0.5; done
    kill -KILL -- "-$pid" 2> /dev/null || true
    rm -f "$file"
  done
}
