#!/bin/sh
# Run docker-compose.yaml with the user's ids and lake: make up, make down, make logs.
#
#   infra/compose/compose.sh up|down|logs
set -eu
cd "$(dirname "$0")/../.."

WAIT_SECONDS=300

say() { echo "compose: $*" >&2; }

check_engine() {
    if ! docker compose version >/dev/null 2>&1; then
        say "docker compose is missing: install Docker with its compose plugin, version 2.20 or later"
        exit 2
    fi
    if ! docker info >/dev/null 2>&1; then
        say "the Docker engine does not answer: start it, and check that you may use it (docker info)"
        exit 2
    fi
}

# Print a setting: from the environment, else from .env, else the default.
setting() {
    eval "value=\${$1:-}"
    if [ -z "$value" ] && [ -f .env ]; then
        value=$(sed -n "s/^$1=//p" .env | tail -n 1)
    fi
    echo "${value:-$2}"
}

# The containers run with the ids of the user, so that the user owns the files in the lake. If the user is root, they run
# with the ids of the lake's owner, else of the checkout's owner, else 50000. They never run as root.
choose_ids() {
    NIGHTJAR_UID=$(setting NIGHTJAR_UID '') NIGHTJAR_GID=$(setting NIGHTJAR_GID '')
    if [ -z "$NIGHTJAR_UID" ]; then
        NIGHTJAR_UID=$(id -u) NIGHTJAR_GID=$(id -g)
        for folder in "$lake" .; do
            [ "$NIGHTJAR_UID" -eq 0 ] || break
            # shellcheck disable=SC2012 # the name is not read; stat differs between Linux and macOS
            owner=$(ls -ldn "$folder" | awk '{ print $3 " " $4 }')
            NIGHTJAR_UID=${owner% *} NIGHTJAR_GID=${owner#* }
        done
        [ "$NIGHTJAR_UID" -ne 0 ] || NIGHTJAR_UID=50000 NIGHTJAR_GID=50000
    fi
    export NIGHTJAR_UID NIGHTJAR_GID="${NIGHTJAR_GID:-$NIGHTJAR_UID}"
}

# Print the engine's errors for the containers that it could not start.
start_errors() {
    docker compose ps --all --quiet | while read -r id; do docker inspect --format '{{.State.Error}}' "$id"; done
}

is_port_taken() {
    case $(start_errors) in
        *"already in use"* | *"already allocated"*) ;;
        *) return 1 ;;
    esac
}

# Print the logs of the containers, and the engine's errors for those that it could not start.
explain() {
    docker compose ps --all >&2
    docker compose logs --no-color --tail 15 >&2
    errors=$(start_errors)
    [ -z "$errors" ] || printf '%s\n' "$errors" | grep . >&2
    if is_port_taken; then
        say "port $(setting NIGHTJAR_PORT 8080) is in use: set another NIGHTJAR_PORT in .env"
    else
        say "not all containers became healthy within $WAIT_SECONDS s: see the logs above"
    fi
    say "the other containers still run: make logs shows their logs, make down stops them"
}

start() { docker compose up --detach --wait --wait-timeout "$WAIT_SECONDS"; }

up() {
    lake=$(setting NIGHTJAR_LAKE_DIR ./lake)
    mkdir -p "$lake" # otherwise the engine would make the folder, owned by root
    choose_ids
    docker compose build
    if ! start; then
        # If the user has not chosen a port, use any free one.
        if ! is_port_taken || [ -n "$(setting NIGHTJAR_PORT '')" ]; then
            explain
            exit 1
        fi
        say "port 8080 is in use, so the UI gets another one"
        export NIGHTJAR_PORT=0
        start || { explain; exit 1; }
    fi
    password=$(docker compose exec -T api-server python -m infra.compose.container password)
    address=http://$(docker compose port api-server 8080)
    cat <<END

Airflow is ready at $address   login: admin   password: $password

Next
  train a model: open the address, log in, and press Trigger; the form is filled in
    $address/dags/train_llm
  use a text of yours: put it into this folder, and the form offers it as /lake/corpora/...
    $lake/corpora
  write text with the model of a run
    docker compose exec emr nightjar sample --lake /lake --model RUN --prompt "My lord,"
  look at the logs, and stop
    make logs
    make down
END
}

down() {
    docker compose down
    echo "Stopped. Runs, passwords and $(setting NIGHTJAR_LAKE_DIR ./lake) are kept; make up starts everything again."
}

check_engine
case "${1:-}" in
    up) up ;;
    down) down ;;
    logs) docker compose logs --follow --tail 100 ;;
    *) say "usage: infra/compose/compose.sh up|down|logs" && exit 2 ;;
esac
