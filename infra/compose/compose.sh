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

# The containers run with the ids of the user, who then owns the files in the lake; never as root.
write_ids() {
    if [ -z "$(setting NIGHTJAR_UID '')" ]; then
        uid=$(id -u) gid=$(id -g)
        [ "$uid" -ne 0 ] || uid=50000 gid=50000
        [ ! -f .env ] || [ -z "$(tail -c 1 .env)" ] || echo >>.env
        printf 'NIGHTJAR_UID=%s\nNIGHTJAR_GID=%s\n' "$uid" "$gid" >>.env
    fi
}

make_lake() {
    lake=$(setting NIGHTJAR_LAKE_DIR ./lake)
    [ -d "$lake" ] && return
    mkdir -p "$lake/corpora"
    [ "$(id -u)" -ne 0 ] || chown "$(setting NIGHTJAR_UID 50000):$(setting NIGHTJAR_GID 50000)" "$lake" "$lake/corpora"
}

# Print the logs of the containers, and the engine's errors for those that it could not start.
explain() {
    docker compose ps --all >&2
    docker compose logs --no-color --tail 15 >&2
    errors=$(docker compose ps --all --quiet \
        | while read -r id; do docker inspect --format '{{.State.Error}}' "$id"; done)
    [ -z "$errors" ] || printf '%s\n' "$errors" | grep . >&2
    case $errors in
        *"already in use"* | *"already allocated"*)
            say "port $(setting NIGHTJAR_PORT 8080) is in use: set another NIGHTJAR_PORT in .env"
            ;;
        *) say "not all containers became healthy within $WAIT_SECONDS s: see the logs above" ;;
    esac
    say "the other containers still run: make logs shows them, make down stops them"
}

up() {
    write_ids
    make_lake
    docker compose build
    if ! docker compose up --detach --wait --wait-timeout "$WAIT_SECONDS"; then
        explain
        exit 1
    fi
    password=$(docker compose exec -T api-server python -m infra.compose.container password)
    echo
    echo "Airflow is ready at http://$(docker compose port api-server 8080)   login: admin   password: $password"
    echo "Trigger the DAG train_llm there. A text in $(setting NIGHTJAR_LAKE_DIR ./lake)/corpora is /lake/corpora/... in its form."
}

check_engine
case "${1:-}" in
    up) up ;;
    down) docker compose down ;;
    logs) docker compose logs --follow --tail 100 ;;
    *) say "usage: infra/compose/compose.sh up|down|logs" && exit 2 ;;
esac
